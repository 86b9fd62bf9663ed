/**
 * Convolution as implicit GEMM for hardware GPUs, and the GEMM that its two gradients share:
 *
 *   c[m, n] = Σ_k a[m, k] · b[k, n]
 *
 * A workgroup of 8×8 invocations makes a 64×64 tile of c in steps of 16 in depth. Each step's 64×16 of a and 16×64 of
 * b lie in workgroup memory as vec4, a along k and b along n, so that 16 vec4 read there feed 256 multiply-adds of an
 * invocation, which holds 8 rows by 2 quads of c in registers. Every invocation loads 4 quads of a and 4 of b a step,
 * and loads the next step's into registers before it multiplies this step's: the loads' latency hides behind the
 * multiplications, with one tile in workgroup memory.
 *
 * Who uses it says what its loads mean; `Gemm` has the texts. In the forward pass m is an output pixel, k tap and
 * input channel, n an output channel.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { lines, range } from './subgroup.js';
import type { Conv2dCall } from './types.js';

/** Side of a tile of c and its depth. */
export const TILE = 64;
const DEPTH = 16;
/** Whether a GEMM of so many rows and columns uses enough of a tile; below, one invocation a quad does better. */
export const fillsTile = (rows: number, columns: number): boolean => rows >= TILE / 4 && columns >= TILE / 4;
/** Quads of a row of a's tile: one more than its depth, so that neighbouring rows lie in other banks. */
const STRIDE = DEPTH / 4 + 1;

export interface Gemm {
  /** Functions in front of `main`. */
  functions: string;
  /**
   * Once: what loads need, and `depth`, the length of the sum in quads (the same for the whole workgroup). It has
   * `group`, the workgroup's place, and `t`, the invocation's number of 64.
   */
  setup: string;
  /** Each step: sets `a0` … `a3` and `b0` … `b3` and goes on to the next step. */
  fetch: string;
  /**
   * How they lie. a `rows`: row t of the tile, depth quads 0 … 3; `blocks`: four rows from 4·(t mod 16) on, as quads
   * along the rows at depths 4·(t / 16) + 0 … 3. b `rows`: depths 4·(t / 16) + 0 … 3, column quad t mod 16; `blocks`:
   * the same, as quads along the depth of columns 0 … 3.
   */
  a: 'rows' | 'blocks';
  b: 'rows' | 'blocks';
  /** Stores `v`, the quad of columns `column` (in tiles of 16 quads) of row `row` (in tiles of 64). */
  store: string;
}

/** Turns four quads round: element j of quad i becomes element i of quad j. */
const turned = (name: string, j: number) =>
  `vec4<f32>(${range(4)
    .map((i) => `${name}${i}[${j}]`)
    .join(', ')})`;

export function tiledGemm(gemm: Gemm): string {
  const place = {
    a: (j: number) =>
      gemm.a === 'rows'
        ? `a_tile[t * ${STRIDE}u + ${j}u] = a${j};`
        : `a_tile[(t % 16u * 4u + ${j}u) * ${STRIDE}u + t / 16u] = ${turned('a', j)};`,
    b: (j: number) =>
      `b_tile[(t / 16u * 4u + ${j}u) * 16u + t % 16u] = ${gemm.b === 'rows' ? `b${j}` : turned('b', j)};`,
  };
  return `
var<workgroup> a_tile: array<vec4<f32>, ${TILE * STRIDE}>;
var<workgroup> b_tile: array<vec4<f32>, ${(DEPTH * TILE) / 4}>;
${gemm.functions}
@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let t = local.y * 8u + local.x;
${lines(8, (i) => `  var s${i}0 = vec4<f32>(0.0); var s${i}1 = vec4<f32>(0.0);`)}
${lines(4, (j) => `  var a${j} = vec4<f32>(0.0); var b${j} = vec4<f32>(0.0);`)}
${gemm.setup}
  let steps = (depth + 3u) / 4u;
  {
${gemm.fetch}
  }
  for (var step = 1u; step <= steps; step++) {
${lines(4, (j) => `    ${place.a(j)} ${place.b(j)}`)}
    workgroupBarrier();
    if (step < steps) {
${gemm.fetch}
    }
    // The last step may be shorter. (A constant bound would be unrolled: four times the code for little speed.)
    for (var k = 0u; k < min(${DEPTH / 4}u, depth - (step - 1u) * ${DEPTH / 4}u); k++) {
${lines(8, (i) => `      let x${i} = a_tile[(local.y + ${8 * i}u) * ${STRIDE}u + k];`)}
${lines(
  4,
  (j) => `      {
        let y0 = b_tile[(k * 4u + ${j}u) * 16u + local.x];
        let y1 = b_tile[(k * 4u + ${j}u) * 16u + local.x + 8u];
${lines(8, (i) => `        s${i}0 = fma(vec4<f32>(x${i}[${j}]), y0, s${i}0); s${i}1 = fma(vec4<f32>(x${i}[${j}]), y1, s${i}1);`)}
      }`,
)}
    }
    workgroupBarrier();
  }
${lines(8, (i) =>
  range(2)
    .map(
      (h) =>
        `  { let row = local.y + ${8 * i}u; let column = local.x + ${8 * h}u; let v = s${i}${h}; ${gemm.store} }`,
    )
    .join('\n'),
)}
}`;
}

export function conv2dTiled<B>(call: Conv2dCall<B>): KernelCall<B>[] {
  const s = call.shape;
  const pixels = s.batch * s.outHeight * s.outWidth;
  const tiles = ceilDiv(pixels, TILE);
  const columns = ceilDiv(quads(s.outChannels) * 4, TILE);
  const body = tiledGemm({
    functions: `${epilogue(call)}\n${DIVIDE}`,
    setup: `
  let first = (group.x + group.y * 65535u) * ${TILE}u;
  let first_quad = group.z * 16u;
  let depth = params.kernel_h * params.kernel_w * params.in_q;
  // This invocation's pixel, and where in the depth (tap and channel quad) its next load is.
  let m = min(first + t, params.pixels - 1u);
  let line = divide(m, params.out_w, params.per_width);
  let n = divide(m, params.out_w * params.out_h, params.per_map);
  let x0 = (m - line * params.out_w) * params.stride - params.padding;
  let y0 = (line - n * params.out_h) * params.stride - params.padding;
  var ky = 0u;
  var kx = 0u;
  var c = 0u;
  var k = t / 16u;
  let quad = first_quad + t % 16u;`,
    fetch: `${lines(
      4,
      (j) => `      {
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = y0 + ky * params.dilation;
        let ix = x0 + kx * params.dilation;
        a${j} = vec4<f32>(0.0);
        if (ky < params.kernel_h && iy < params.in_h && ix < params.in_w) {
          a${j} = load_x(((n * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        c++;
        if (c == params.in_q) { c = 0u; kx++; if (kx == params.kernel_w) { kx = 0u; ky++; } }
      }`,
    )}
      if (k < depth && quad < params.out_q) {
${lines(4, (j) => `        b${j} = weight[(k * 4u + ${j}u) * params.out_q + quad];`)}
      } else {
${lines(4, (j) => `        b${j} = vec4<f32>(0.0);`)}
      }
      k += 4u;`,
    a: 'rows',
    b: 'rows',
    store: `if (first + row < params.pixels && first_quad + column < params.out_q) { finish(v, vectors_of(first_quad + column), (first + row) * params.out_q + first_quad + column); }`,
  });
  return [
    {
      label: 'conv2d.forward.tiled',
      uniforms: {
        ...geometryUniforms(s),
        per_width: f32(1 / s.outWidth),
        per_map: f32(1 / (s.outWidth * s.outHeight)),
      },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body,
      workgroups: [Math.min(tiles, 65535), ceilDiv(tiles, 65535), columns],
      flops: convFlops(s),
      bytes: convBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}
