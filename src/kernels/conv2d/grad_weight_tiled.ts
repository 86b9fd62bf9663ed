/**
 * Weight gradient by the GEMM of tiled.ts, for hardware GPUs: m is a row of dw (tap and input channel), k an output
 * pixel of the workgroup's chunk, n an output channel. The quads of x lie along m, so an invocation loads four pixels'
 * and turns them round on the way to workgroup memory.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, read } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';
import { lines } from './subgroup.js';
import { TILE, tiledGemm } from './tiled.js';

export function gradWeightTiled<B>(call: GradWeightCall<B>, partial: B, plan: SplitPlan): KernelCall<B> {
  const s = call.shape;
  const body = tiledGemm({
    functions: DIVIDE,
    setup: `
  let first = group.x * 16u;
  let first_quad = group.y * 16u;
  let start = group.z * params.chunk;
  let end = min(start + params.chunk, params.pixels);
  let depth = (end - start + 3u) / 4u;
  // This invocation's quad of rows, and the first of the four pixels of its next loads.
  let row_quad = min(first + t % 16u, params.row_quads - 1u);
  let tap = row_quad / params.in_q;
  let c = row_quad % params.in_q;
  let dy = tap / params.kernel_w * params.dilation - params.padding;
  let dx = tap % params.kernel_w * params.dilation - params.padding;
  let quad = first_quad + t % 16u;
  var m = start + t / 16u * 4u;`,
    fetch: `${lines(
      4,
      (j) => `      {
        let p = m + ${j}u;
        let line = divide(p, params.out_w, params.per_width);
        let n = divide(p, params.out_w * params.out_h, params.per_map);
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = (line - n * params.out_h) * params.stride + dy;
        let ix = (p - line * params.out_w) * params.stride + dx;
        a${j} = vec4<f32>(0.0);
        b${j} = vec4<f32>(0.0);
        if (p < end && iy < params.in_h && ix < params.in_w) {
          a${j} = load_x(((n * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        if (p < end && quad < params.out_q) { b${j} = load_g(p * params.out_q + quad); }
      }`,
    )}
      m += 16u;`,
    a: 'blocks',
    b: 'rows',
    store: `if (first * 4u + row < params.row_quads * 4u && first_quad + column < params.out_q) { partial[((group.z * params.row_quads + first) * 4u + row) * params.out_q + first_quad + column] = v; }`,
  });
  return {
    label: 'conv2d.grad_weight.tiled',
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
    body,
    workgroups: [ceilDiv(plan.rows, TILE), ceilDiv(plan.columns, TILE), plan.splits],
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
