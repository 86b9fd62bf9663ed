/**
 * Backward of pooling, gathered: an invocation owns an input quad and adds what the windows over it give, so
 * that no two write the same place. A maximum goes to the first place of its window (rows first) that holds it, as
 * PyTorch does. Averages divide as the forward pass does.
 */
import { type BufferBinding, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import {
  bytesPerQuad,
  ceilDiv,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  write,
} from '../tensor.js';
import { eachPlaceOfWindow, eachQuad, type PoolWindow, windowUniforms } from './window.js';

const SIZE = 64;

function gather<B>(
  label: string,
  extra: readonly BufferBinding<B>[],
  dy: Operand<B>,
  dx: Operand<B>,
  w: PoolWindow,
  step: string,
): KernelCall<B>[] {
  const count = quadsOf(dx.shape);
  return [
    {
      label,
      uniforms: { count: u32(count), ...windowUniforms(dx.shape, dy.shape, w) },
      buffers: [...extra, read('dy', dy), write('dx', dx)],
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
      ${step}
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

/**
 * In two passes: which place of its window each maximum is at, four bytes a quad; then every input looks at the windows
 * over it. Comparing the input with each window's maximum and all its earlier places instead needs no memory and takes
 * three times as long.
 */
export function maxPoolBackward<B>(
  x: Operand<B>,
  dy: Operand<B>,
  dx: Operand<B>,
  w: PoolWindow,
  temporary: (shape: readonly number[], dtype: 'f32') => Operand<B>,
): KernelCall<B>[] {
  if (w.kernel > 16)
    throw new Error(`maxPool.backward: a window of ${w.kernel} has places that a byte cannot tell.`);
  const count = quadsOf(dy.shape);
  // One u32 a quad, four of them in an element.
  const places = temporary([ceilDiv(count, 4), 4], 'f32').ref;
  return [
    {
      label: 'maxPool.backward.places',
      uniforms: { count: u32(count), ...windowUniforms(dx.shape, dy.shape, w) },
      buffers: [read('x', x), { name: 'places', ref: places, element: 'u32', write: true }],
      body: `${eachQuad(SIZE, 'out')}
  var most = vec4<f32>(-3.4028234e38);
  var place = vec4<u32>(255u);
${eachPlaceOfWindow(`// Only a larger value takes over: the first of equal ones stays.
      place = select(place, vec4<u32>(ky * params.kernel + kx), v > most);
      most = max(most, v);`)}
  places[i] = place.x | (place.y << 8u) | (place.z << 16u) | (place.w << 24u);
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * w.kernel * w.kernel,
      bytes: quadsOf(dx.shape) * bytesPerQuad(x.dtype),
    },
    ...gather(
      'maxPool.backward',
      [{ name: 'places', ref: places, element: 'u32', write: false }],
      dy,
      dx,
      w,
      `let place = vec4<u32>((y - oy * params.stride) * params.kernel + x - ox * params.stride);
      let mine = ((vec4<u32>(places[o]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)) == place;
      sum += select(vec4<f32>(0.0), load_dy(o), mine);`,
    ),
  ];
}

export const avgPoolBackward = <B>(dy: Operand<B>, dx: Operand<B>, w: PoolWindow) =>
  gather(
    'avgPool.backward',
    [],
    dy,
    dx,
    w,
    `let rows = min(oy * params.stride + params.kernel, params.in_h + 2u * params.padding) - oy * params.stride;
      let columns = min(ox * params.stride + params.kernel, params.in_w + 2u * params.padding) - ox * params.stride;
      sum += load_dy(o) / f32(rows * columns);`,
  );

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
