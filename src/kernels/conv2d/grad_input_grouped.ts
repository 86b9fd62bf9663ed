/**
 * Input gradient of a convolution in true groups: input channel c is seen by the O/g output channels of its group
 * only. Weights [kh][kw][I/g][Op]. Rare in these nets, so plain: one pixel and quad of channels an invocation.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { quads, read, write } from '../tensor.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, REACHING } from './grad_geometry.js';
import { classGrid, eachClassPixel, eachTap } from './grad_input_direct.js';
import type { GradInputCall } from './grad_types.js';

export function gradInputGrouped<B>(call: GradInputCall<B>): KernelCall<B>[] {
  const s = call.shape;
  const depth = s.inChannels / s.groups;
  return [
    {
      label: 'conv2d.grad_input.grouped',
      uniforms: {
        ...gradInputUniforms(s),
        depth: u32(depth),
        per_group: u32(s.outChannels / s.groups),
        inputs: u32(s.inChannels),
      },
      buffers: [
        read('dy', call.dy),
        { name: 'weight', ref: call.weight, element: 'f32', write: false },
        write('dx', call.dx),
      ],
      body: `${CLASSES}${REACHING}
${eachClassPixel}
  var sum = vec4<f32>(0.0);
${eachTap(`      for (var k = 0u; k < 4u; k++) {
        let channel = quad * 4u + k;
        if (channel >= params.inputs) { break; }
        let first = channel / params.depth * params.per_group;
        let w = (tap * params.depth + channel % params.depth) * params.out_q * 4u;
        for (var o = first; o < first + params.per_group; o++) {
          sum[k] += weight[w + o] * load_dy(place * params.out_q + o / 4u)[o % 4u];
        }
      }`)}
  store_dx(to, sum);
}`,
      workgroups: classGrid(call),
      flops: convFlops(s),
      bytes: gradInputBytes(call, s.kernelHeight * s.kernelWidth * depth * quads(s.outChannels) * 16),
    },
  ];
}
