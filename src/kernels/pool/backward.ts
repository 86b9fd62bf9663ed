/**
 * Backward of average pooling (that of max pooling is in max_training.ts), gathered: an invocation owns an input quad and
 * adds what the windows over it give, so that no two write the same place. Averages divide as the forward pass does.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, eachItem, grid, type Operand, quads, quadsOf, read, write } from '../tensor.js';
import { eachQuad, type PoolWindow, windowUniforms } from './window.js';

const SIZE = 64;

export function avgPoolBackward<B>(dy: Operand<B>, dx: Operand<B>, w: PoolWindow): KernelCall<B>[] {
  const count = quadsOf(dx.shape);
  return [
    {
      label: 'avgPool.backward',
      uniforms: { count: u32(count), ...windowUniforms(dx.shape, dy.shape, w) },
      buffers: [read('dy', dy), write('dx', dx)],
      body: `${eachQuad(SIZE, 'in')}
  // The windows that cover this place, in coordinates with the padding.
  let y = py + params.padding;
  let x = px + params.padding;
  let from_y = select(0u, divide(y - params.kernel, params.stride, params.per_stride) + 1u, y >= params.kernel);
  let from_x = select(0u, divide(x - params.kernel, params.stride, params.per_stride) + 1u, x >= params.kernel);
  let to_y = min(divide(y, params.stride, params.per_stride), params.out_h - 1u);
  let to_x = min(divide(x, params.stride, params.per_stride), params.out_w - 1u);
  var sum = vec4<f32>(0.0);
  for (var oy = from_y; oy <= to_y; oy++) {
    for (var ox = from_x; ox <= to_x; ox++) {
      let o = ((n * params.out_h + oy) * params.out_w + ox) * params.channel_quads + q;
      let rows = min(oy * params.stride + params.kernel, params.in_h + 2u * params.padding) - oy * params.stride;
      let columns = min(ox * params.stride + params.kernel, params.in_w + 2u * params.padding) - ox * params.stride;
      sum += load_dy(o) / f32(rows * columns);
    }
  }
  store_dx(i, sum);
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * w.kernel * w.kernel,
      bytes: quadsOf(dx.shape) * bytesPerQuad(dx.dtype) + quadsOf(dy.shape) * bytesPerQuad(dy.dtype),
    },
  ];
}

/** dx = dy / (H·W) at every place. */
export function globalAvgPoolBackward<B>(dy: Operand<B>, dx: Operand<B>): KernelCall<B>[] {
  const [, h, w, c] = dx.shape;
  const count = quadsOf(dx.shape);
  return [
    {
      label: 'globalAvgPool.backward',
      uniforms: { count: u32(count), channel_quads: u32(quads(c)), pixels: u32(h * w) },
      buffers: [read('dy', dy), write('dx', dx)],
      body: `${eachItem(SIZE)}
  let n = i / (params.channel_quads * params.pixels);
  store_dx(i, load_dy(n * params.channel_quads + i % params.channel_quads) / f32(params.pixels));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4,
      bytes: count * bytesPerQuad(dx.dtype),
    },
  ];
}
