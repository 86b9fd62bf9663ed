/** y = x / max(‖x‖₂, eps) over the last axis. One invocation a row. */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
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

export function l2Normalize<B>(x: Operand<B>, eps: number, y: Operand<B>): KernelCall<B>[] {
  const count = rowsOf(x.shape);
  return [
    {
      label: 'l2Normalize.forward',
      uniforms: { count: u32(count), channel_quads: u32(quads(channelsOf(x.shape))), eps: f32(eps) },
      buffers: [read('x', x), write('y', y)],
      body: `${eachItem(SIZE)}
  let first = i * params.channel_quads;
  var sum = 0.0;
  for (var q = 0u; q < params.channel_quads; q++) { let v = load_x(first + q); sum += dot(v, v); }
  let scale = 1.0 / max(sqrt(sum), params.eps);
  for (var q = 0u; q < params.channel_quads; q++) { store_y(first + q, load_x(first + q) * scale); }
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(x.shape) * 4 * 3,
      bytes: quadsOf(x.shape) * (bytesPerQuad(x.dtype) + bytesPerQuad(y.dtype)),
    },
  ];
}
