/**
 * Convolution at stride 1 whose lanes are runs of pixels, for software adapters and maps of few channels. As in subgroup.ts
 * loads are what costs, and here a loaded pixel serves a row of the filter and RUN times as many pixels share a loaded
 * weight: a lane owns `run` pixels of an output row and four quads of channels. For each row of the filter and quad of
 * input channels it loads run + 2 pixels, which move on by one from tap to tap; of the tap's 16 vec4 of weights each lane
 * loads its share, and `subgroupShuffle` hands them round.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { handed, lines, range } from './subgroup.js';
import type { Conv2dCall, Conv2dShape } from './types.js';

export interface RunsTile {
  /** Lanes of a subgroup: 4, 8 or 16. */
  lanes: number;
  /** Output pixels of a lane. */
  run: number;
}

/** Quads of output channels of a lane. */
const QUADS = 4;

/** Filters of more than one tap and three at most in a row, and outputs for most of a lane's quads. */
export const isRuns = (s: Conv2dShape): boolean =>
  s.kernelWidth > 1 &&
  s.kernelWidth <= 3 &&
  s.stride === 1 &&
  s.dilation === 1 &&
  s.groups === 1 &&
  s.inChannels > 3 &&
  s.outChannels > 8;

export function conv2dRuns<B>(call: Conv2dCall<B>, { lanes, run }: RunsTile): KernelCall<B>[] {
  const s = call.shape;
  const runs = ceilDiv(s.outWidth, run);
  const count = s.batch * s.outHeight * runs;
  const groups = ceilDiv(count, lanes);
  const loads = (4 * QUADS) / lanes;
  const columns = run + 2;

  const products = range(QUADS).map((o) => {
    const weights = range(4).map((k) => {
      const i = 4 * k + o;
      return `let p${k} = ${handed(`w${Math.floor(i / lanes)}`, i % lanes)};`;
    });
    const sums = range(run).map((r) => {
      const sum = range(4).reduce(
        (inner, k) => `fma(vec4<f32>(x${r}.${'xyzw'[k]}), p${k}, ${inner})`,
        `s${o * run + r}`,
      );
      return `s${o * run + r} = ${sum};`;
    });
    return `        { ${[...weights, ...sums].join(' ')} }`;
  });
  const body = `
${DIVIDE}
${epilogue(call)}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let wanted = (group.x + group.y * 65535u) * ${lanes}u + lane;
  let item = min(wanted, params.count - 1u);
  let row = divide(item, params.runs, params.per_row);
  let ox = (item - row * params.runs) * ${run}u;
  let n = divide(row, params.out_h, params.per_map);
  let oy = row - n * params.out_h;
  let first = group.z * ${QUADS}u;
${lines(loads, (l) => `  let at${l} = (${(l * lanes) / QUADS}u + lane / ${QUADS}u) * params.out_q + min(first + lane % ${QUADS}u, params.out_q - 1u);`)}
${lines(QUADS * run, (i) => `  var s${i} = vec4<f32>(0.0);`)}
  // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
  let ix = ox - params.padding;
${lines(columns, (j) => `  let in${j} = ix + ${j}u < params.in_w;`)}
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    let iy = oy + ky - params.padding;
    let inside = iy < params.in_h;
    let start = ((n * params.in_h + iy) * params.in_w + ix) * params.in_q;
    for (var c = 0u; c < params.in_q; c++) {
${lines(columns, (j) => `      var x${j} = select(vec4<f32>(0.0), load_x(select(0u, start + ${j}u * params.in_q + c, in${j} && inside)), in${j} && inside);`)}
      var at = (ky * params.kernel_w * params.in_q + c) * 4u * params.out_q;
      for (var kx = 0u; kx < params.kernel_w; kx++) {
${lines(loads, (l) => `        let w${l} = weight[at + at${l}];`)}
        // Always so. The driver does not know it and gives the products a block of their own, where it keeps more in registers.
        if (first < params.out_q) {
${products.join('\n')}
        }
        ${range(columns - 1)
          .map((j) => `x${j} = x${j + 1};`)
          .join(' ')}
        at += params.in_q * 4u * params.out_q;
      }
    }
  }
  var sums = array(${range(QUADS * run)
    .map((i) => `s${i}`)
    .join(', ')});
  let rest = select(0u, min(${run}u, params.out_w - ox), wanted < params.count);
  for (var q = first; q < min(first + ${QUADS}u, params.out_q); q++) {
    let vectors = vectors_of(q);
    var to = (row * params.out_w + ox) * params.out_q + q;
    for (var r = 0u; r < rest; r++) {
      finish(sums[(q - first) * ${run}u + r], vectors, to);
      to += params.out_q;
    }
  }
}`;
  return [
    {
      label: `conv2d.forward.runs of ${run}`,
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: {
        ...geometryUniforms(s),
        count: u32(count),
        runs: u32(runs),
        per_row: f32(1 / runs),
        per_map: f32(1 / s.outHeight),
      },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body,
      workgroups: [Math.min(groups, 65535), ceilDiv(groups, 65535), ceilDiv(quads(s.outChannels), QUADS)],
      flops: convFlops(s),
      bytes: convBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 4 * quads(s.outChannels) * bytesPerQuad('f32'),
      ),
    },
  ];
}
