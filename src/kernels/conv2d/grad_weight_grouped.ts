/**
 * Weight gradient of a convolution in true groups, dw [kh][kw][I/g][Op]. Rare in these nets, so plain: an
 * invocation takes a tap, an input channel of the group and a quad of output channels over a chunk of pixels.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, quads, read } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { eachPixelOfChunk } from './grad_weight_direct.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';

const SIZE = 64;

export function gradWeightGrouped<B>(call: GradWeightCall<B>, partial: B, plan: SplitPlan): KernelCall<B> {
  const s = call.shape;
  const count = plan.splits * plan.rows * quads(s.outChannels);
  return {
    label: 'conv2d.grad_weight.grouped',
    uniforms: {
      ...geometryUniforms(s),
      count: u32(count),
      rows: u32(plan.rows),
      chunk: u32(plan.chunk),
      depth: u32(s.inChannels / s.groups),
      per_group: u32(s.outChannels / s.groups),
      outputs: u32(s.outChannels),
    },
    buffers: [
      read('x', call.x),
      read('dy', call.dy),
      { name: 'partial', ref: partial, element: 'vec4<f32>', write: true },
    ],
    body: `${eachItem(SIZE)}
  let o = i % params.out_q;
  let row = i / params.out_q % params.rows;
  let split = i / (params.out_q * params.rows);
  let c = row % params.depth;
  let ky = row / params.depth / params.kernel_w;
  let kx = row / params.depth % params.kernel_w;
  // Padding channels of the last quad have gradient zero; the clamp keeps their group in range.
  let last = params.outputs - 1u;
  let channels = min(vec4<u32>(o * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last)) / params.per_group * params.depth + c;
  var sum = vec4<f32>(0.0);
${eachPixelOfChunk(`    let base = place * params.in_q;
    let v = vec4<f32>(${[0, 1, 2, 3].map((k) => `load_x(base + channels[${k}] / 4u)[channels[${k}] % 4u]`).join(', ')});
    sum += v * load_dy(m * params.out_q + o);`)}
  partial[i] = sum;
}`,
    workgroups: grid(count, SIZE),
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
