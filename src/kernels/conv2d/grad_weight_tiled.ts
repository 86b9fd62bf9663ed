/**
 * Weight gradient by the GEMM of gemm.ts, for hardware GPUs: m is a row of dw (tap and input channel), k an output
 * pixel of the workgroup's chunk, n an output channel. The quads of x lie along m, so an invocation loads four pixels'
 * and turns them round on the way to workgroup memory.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, read } from '../tensor.js';
import { PLAIN, placesIn, quadLoad, type Tile } from './gemm.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';

export function gradWeightTiled<B>(
  call: GradWeightCall<B>,
  partial: B,
  plan: SplitPlan,
  tile: Tile = PLAIN,
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
  var m = start + ${at.down} * 4u;`,
    fetch: `${lines(
      at.loads,
      (j) => `      {
        let p = m + ${at.deeper(j)}u;
        let line = divide(p, params.out_w, params.per_width);
        let n = divide(p, params.out_w * params.out_h, params.per_map);
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = (line - n * params.out_h) * params.stride + dy;
        let ix = (p - line * params.out_w) * params.stride + dx;
        a${j} = Quad();
        b${j} = Quad();
        if (p < end && iy < params.in_h && ix < params.in_w) {
          a${j} = quad_x(((n * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        if (p < end && quad < params.out_q) { b${j} = quad_g(p * params.out_q + quad); }
      }`,
    )}
      m += ${tile.depth}u;`,
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
    buffers: [
      read('x', call.x),
      read('g', call.dy),
      { name: 'partial', ref: partial, element: 'vec4<f32>', write: true },
    ],
    body: kernel.body,
    workgroups: [ceilDiv(plan.rows, tile.side), ceilDiv(plan.columns, tile.side), plan.splits],
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
