/**
 * y = x/r with r = max(‖x‖₂, eps): dx = (dy − y·(y·dy))/r, and dy/r where the row is shorter than eps. One
 * invocation a row.
 */
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

export function l2NormalizeBackward<B>(
  x: Operand<B>,
  dy: Operand<B>,
  eps: number,
  dx: Operand<B>,
): KernelCall<B>[] {
  const count = rowsOf(x.shape);
  return [
    {
      label: 'l2Normalize.backward',
      uniforms: { count: u32(count), channel_quads: u32(quads(channelsOf(x.shape))), eps: f32(eps) },
      buffers: [read('x', x), read('dy', dy), write('dx', dx)],
      body: `${eachItem(SIZE)}
  let first = i * params.channel_quads;
  var square = 0.0;
  var along = 0.0;
  for (var q = 0u; q < params.channel_quads; q++) {
    let v = load_x(first + q);
    square += dot(v, v);
    along += dot(v, load_dy(first + q));
  }
  let length = sqrt(square);
  let scale = 1.0 / max(length, params.eps);
  let back = select(0.0, along * scale * scale, length > params.eps);
  for (var q = 0u; q < params.channel_quads; q++) {
    store_dx(first + q, (load_dy(first + q) - load_x(first + q) * back) * scale);
  }
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(x.shape) * 4 * 7,
      bytes: quadsOf(x.shape) * 3 * bytesPerQuad(x.dtype),
    },
  ];
}
