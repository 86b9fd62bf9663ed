/**
 * Convolution in groups. Depthwise (one filter a channel, weights [kh][kw][Cp]) takes a quad of channels an
 * invocation and several pixels of a row, so that neighbouring windows share their weights. True groups
 * (weights [kh][kw][I/g][Op], I/g not padded) are rare in these nets and go one output channel at a time.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, eachItem, grid, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import type { Conv2dCall } from './types.js';

const SIZE = 64;

/** @param run output pixels of a row per invocation. */
export function conv2dDepthwise<B>(call: Conv2dCall<B>, run: number): KernelCall<B>[] {
  const s = call.shape;
  const runs = ceilDiv(s.outWidth, run);
  const count = s.batch * s.outHeight * runs * quads(s.outChannels);
  const each = (f: (r: number) => string) => Array.from({ length: run }, (_, r) => f(r)).join('\n');
  return [
    {
      label: 'conv2d.forward.depthwise',
      uniforms: { ...geometryUniforms(s), count: u32(count), runs: u32(runs) },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body: `${epilogue(call)}
${eachItem(SIZE)}
  let quad = i % params.out_q;
  let ox = (i / params.out_q) % params.runs * ${run}u;
  let row = i / (params.out_q * params.runs);
  let oy = row % params.out_h;
  let n = row / params.out_h;
${each((r) => `  var sum${r} = vec4<f32>(0.0);`)}
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    let iy = oy * params.stride + ky * params.dilation - params.padding;
    if (iy >= params.in_h) { continue; }
    let line = (n * params.in_h + iy) * params.in_w;
    for (var kx = 0u; kx < params.kernel_w; kx++) {
      let w = weight[(ky * params.kernel_w + kx) * params.out_q + quad];
      let ix = ox * params.stride + kx * params.dilation - params.padding;
${each((r) => `      { let at = ix + ${r}u * params.stride; if (at < params.in_w) { sum${r} += w * load_x((line + at) * params.in_q + quad); } }`)}
    }
  }
  let first = (row * params.out_w + ox) * params.out_q + quad;
${each((r) => `  if (ox + ${r}u < params.out_w) { finish(sum${r}, quad, first + ${r}u * params.out_q); }`)}
}`,
      workgroups: grid(count, SIZE),
      flops: convFlops(s),
      bytes: convBytes(call, s.kernelHeight * s.kernelWidth * quads(s.outChannels) * 16),
    },
  ];
}

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
  finish(sum, quad, i);
}`,
      workgroups: grid(count, SIZE),
      flops: convFlops(s),
      bytes: convBytes(call, s.kernelHeight * s.kernelWidth * depth * quads(s.outChannels) * 16),
    },
  ];
}
