/** dx = y·(dy − Σ dy·y) over the last axis, from softmax's output. One invocation a row. */
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

export function softmaxBackward<B>(y: Operand<B>, dy: Operand<B>, dx: Operand<B>): KernelCall<B>[] {
  const count = rowsOf(y.shape);
  return [
    {
      label: 'softmax.backward',
      uniforms: { count: u32(count), channel_quads: u32(quads(channelsOf(y.shape))) },
      buffers: [read('y', y), read('dy', dy), write('dx', dx)],
      body: `${eachItem(SIZE)}
  let first = i * params.channel_quads;
  var sum = 0.0;
  for (var q = 0u; q < params.channel_quads; q++) { sum += dot(load_dy(first + q), load_y(first + q)); }
  for (var q = 0u; q < params.channel_quads; q++) { store_dx(first + q, load_y(first + q) * (load_dy(first + q) - sum)); }
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(y.shape) * 4 * 4,
      bytes: quadsOf(y.shape) * 3 * bytesPerQuad(y.dtype),
    },
  ];
}
