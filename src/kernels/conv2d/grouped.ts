/**
 * Convolution in true groups: output channel o sees the I/g input channels of its group only. Weights
 * [kh][kw][I/g][Op], I/g not padded. Rare in these nets, so plain: one pixel and quad of channels an invocation.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import type { Conv2dCall } from './types.js';

const SIZE = 64;

export function conv2dGrouped<B>(call: Conv2dCall<B>): KernelCall<B>[] {
  const s = call.shape;
  const count = s.batch * s.outHeight * s.outWidth * quads(s.outChannels);
  const depth = s.inChannels / s.groups;
  return [
    {
      label: 'conv2d.forward.grouped',
      uniforms: {
        ...geometryUniforms(s),
        count: u32(count),
        depth: u32(depth),
        per_group: u32(s.outChannels / s.groups),
        outputs: u32(s.outChannels),
      },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body: `${epilogue(call)}
${eachItem(SIZE)}
  let quad = i % params.out_q;
  let pixel = i / params.out_q;
  let ox = pixel % params.out_w;
  let oy = (pixel / params.out_w) % params.out_h;
  let n = pixel / (params.out_w * params.out_h);
  var sum = vec4<f32>(0.0);
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    let iy = oy * params.stride + ky * params.dilation - params.padding;
    if (iy >= params.in_h) { continue; }
    for (var kx = 0u; kx < params.kernel_w; kx++) {
      let ix = ox * params.stride + kx * params.dilation - params.padding;
      if (ix >= params.in_w) { continue; }
      let base = ((n * params.in_h + iy) * params.in_w + ix) * params.in_q;
      for (var c = 0u; c < params.depth; c++) {
        let w = weight[((ky * params.kernel_w + kx) * params.depth + c) * params.out_q + quad];
        for (var k = 0u; k < 4u; k++) {
          // Padding channels of the last quad have weight zero; the clamp keeps their group in range.
          let channel = min(quad * 4u + k, params.outputs - 1u) / params.per_group * params.depth + c;
          sum[k] += w[k] * load_x(base + channel / 4u)[channel % 4u];
        }
      }
    }
  }
  finish(sum, vectors_of(quad), i);
}`,
      workgroups: grid(count, SIZE),
      flops: convFlops(s),
      bytes: convBytes(call, s.kernelHeight * s.kernelWidth * depth * quads(s.outChannels) * 16),
    },
  ];
}
