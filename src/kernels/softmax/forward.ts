/**
 * Softmax over the last axis: y = exp(x − max) / Σ exp(x − max). One invocation a row; padding channels take
 * no part and are written zero.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import {
  bytesPerQuad,
  channelsOf,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  rowsOf,
  write,
} from '../tensor.js';

const SIZE = 64;

export function softmax<B>(x: Operand<B>, y: Operand<B>): KernelCall<B>[] {
  const channels = channelsOf(x.shape);
  const count = rowsOf(x.shape);
  return [
    {
      label: 'softmax.forward',
      uniforms: { count: u32(count), channels: u32(channels), channel_quads: u32(quads(channels)) },
      buffers: [read('x', x), write('y', y)],
      body: `
// Which of the four channels of a quad exist.
fn real(q: u32) -> vec4<bool> { return vec4<u32>(q * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels); }
${eachItem(SIZE)}
  let first = i * params.channel_quads;
  var top = vec4<f32>(-3.4028234e38);
  for (var q = 0u; q < params.channel_quads; q++) { top = select(top, max(top, load_x(first + q)), real(q)); }
  let most = max(max(top.x, top.y), max(top.z, top.w));
  var sums = vec4<f32>(0.0);
  for (var q = 0u; q < params.channel_quads; q++) { sums += select(vec4<f32>(0.0), exp(load_x(first + q) - most), real(q)); }
  let total = dot(sums, vec4<f32>(1.0));
  for (var q = 0u; q < params.channel_quads; q++) {
    store_y(first + q, select(vec4<f32>(0.0), exp(load_x(first + q) - most) / total, real(q)));
  }
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(x.shape) * 4 * 4,
      bytes: quadsOf(x.shape) * (bytesPerQuad(x.dtype) + bytesPerQuad(y.dtype)),
    },
  ];
}
