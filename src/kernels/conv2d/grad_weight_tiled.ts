/**
 * Weight gradient by the GEMM of gemm.ts, for hardware GPUs: m is a row of dw (tap and input channel), k an output
 * pixel of the workgroup's chunk, n an output channel. The quads of x lie along m, so an invocation loads four pixels'
 * and turns them round on the way to workgroup memory.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, read, vector } from '../tensor.js';
import { placesIn, quadLoad, type Tile } from './gemm.js';
import { convFlops, geometryUniforms, isPointwise } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';

/** Loads four pixels in a row of a 1×1 convolution's matrix, the h-th of an invocation's, `deeper` than its first. */
const pixelsOfMatrix = (h: number, deeper: number) =>
  lines(4, (i) => {
    const j = 4 * h + i;
    return `      {
        let p = m + ${deeper + i}u;
        a_counts${j} = p < end;
        b_counts${j} = p < end && quad < params.out_q;
        a${j} = quad_x(select(0u, p * params.in_q + c, a_counts${j}));
        b${j} = quad_g(select(0u, p * params.out_q + quad, b_counts${j}));
      }`;
  });

/** The same of a map: the first one's place by division, then from pixel to pixel. */
const pixelsOfMap = (h: number, deeper: number) => `      {
        let p = m + ${deeper}u;
        let line = divide(p, params.out_w, params.per_width);
        var n = divide(p, params.out_w * params.out_h, params.per_map);
        var oy = line - n * params.out_h;
        var ox = p - line * params.out_w;
${lines(4, (i) => {
  const j = 4 * h + i;
  const next = `
        ox++;
        if (ox == params.out_w) { ox = 0u; oy++; }
        if (oy == params.out_h) { oy = 0u; n++; }`;
  return `        {
          // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
          let iy = oy * params.stride + dy;
          let ix = ox * params.stride + dx;
          a_counts${j} = p + ${i}u < end && iy < params.in_h && ix < params.in_w;
          b_counts${j} = p + ${i}u < end && quad < params.out_q;
          a${j} = quad_x(select(0u, ((n * params.in_h + iy) * params.in_w + ix) * params.in_q + c, a_counts${j}));
          b${j} = quad_g(select(0u, (p + ${i}u) * params.out_q + quad, b_counts${j}));
        }${i < 3 ? next : ''}`;
})}
      }`;

export function gradWeightTiled<B>(
  call: GradWeightCall<B>,
  partial: B,
  plan: SplitPlan,
  tile: Tile,
): KernelCall<B> {
  const s = call.shape;
  const at = placesIn(tile);
  const kernel = gemmKernel(tile, {
    functions: `${DIVIDE}
${quadLoad('x', call.x.dtype, tile)}
${quadLoad('g', call.dy.dtype, tile)}`,
    setup: `
  let first = group.x * ${tile.side / 4}u;
  let first_quad = group.y * ${tile.side / 4}u;
  let start = group.z * params.chunk;
  let end = min(start + params.chunk, params.pixels);
  let depth = (end - start + 3u) / 4u;
  // This invocation's quad of rows, and the first of the four pixels of its next loads.
  let row_quad = min(first + ${at.across}, params.row_quads - 1u);
  let tap = row_quad / params.in_q;
  let c = row_quad % params.in_q;
  let dy = tap / params.kernel_w * params.dilation - params.padding;
  let dx = tap % params.kernel_w * params.dilation - params.padding;
  let quad = first_quad + ${at.across};
  var m = start + ${at.down} * 4u;
${lines(at.loads, (j) => `  var a_counts${j} = false; var b_counts${j} = false;`)}`,
    fetch: `${lines(at.loads / 4, (h) =>
      (isPointwise(s) ? pixelsOfMatrix : pixelsOfMap)(h, at.deeper(4 * h)),
    )}
      m += ${tile.depth}u;`,
    counts: { a: (j) => `a_counts${j}`, b: (j) => `b_counts${j}` },
    a: 'blocks',
    b: 'rows',
    store: `if (first * 4u + row < params.row_quads * 4u && first_quad + column < params.out_q) { partial[((group.z * params.row_quads + first) * 4u + row) * params.out_q + first_quad + column] = v; }`,
  });
  return {
    label: `conv2d.grad_weight.${kernel.name}`,
    directives: kernel.directives,
    uniforms: {
      ...geometryUniforms(s),
      row_quads: u32(plan.rows / 4),
      chunk: u32(plan.chunk),
      per_width: f32(1 / s.outWidth),
      per_map: f32(1 / (s.outWidth * s.outHeight)),
    },
    buffers: [read('x', call.x), read('g', call.dy), vector('partial', partial, true)],
    body: kernel.body,
    workgroups: [ceilDiv(plan.rows, tile.side), ceilDiv(plan.columns, tile.side), plan.splits],
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
