/**
 * Pooling over windows of a map [N, H, W, C], one invocation an output quad. Windows may hang over the border
 * (ceil mode): what is outside does not count towards a maximum. Averages follow PyTorch's
 * count_include_pad=true: padding counts as zeros, what hangs over the padding does not count.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import {
  bytesPerQuad,
  DIVIDE,
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

/** Two outputs of a row an invocation, the window unrolled: the columns they share are loaded once. */
export function maxPool<B>(x: Operand<B>, y: Operand<B>, w: PoolWindow): KernelCall<B>[] {
  const [n, inH, inW] = x.shape;
  const [, outH, outW, c] = y.shape;
  const pairs = Math.ceil(outW / 2);
  const count = n * outH * pairs * quads(c);
  const columns = Array.from({ length: w.stride + w.kernel }, (_, j) => j);
  const lowest = 'vec4<f32>(-3.4028234e38)';
  const rows = Array.from(
    { length: w.kernel },
    (
      _,
      r,
    ) => `  { let inside = y0 + ${r}u < params.in_h; let line = (n * params.in_h + y0 + ${r}u) * params.in_w + x0;
${columns
  .map(
    (j) =>
      `    let v${j} = select(${lowest}, load_x(select(0u, line + ${j}u, inside && in${j}) * params.channel_quads + q), inside && in${j});`,
  )
  .join('\n')}
${columns
  .slice(0, w.kernel)
  .map((j) => `    first = max(first, v${j}); second = max(second, v${j + w.stride});`)
  .join('\n')} }`,
  );
  return [
    {
      label: `maxPool.forward ${w.kernel}/${w.stride}`,
      uniforms: {
        count: u32(count),
        channel_quads: u32(quads(c)),
        pairs: u32(pairs),
        in_h: u32(inH),
        in_w: u32(inW),
        out_h: u32(outH),
        out_w: u32(outW),
        padding: u32(w.padding),
        per_quads: f32(1 / quads(c)),
        per_row: f32(1 / pairs),
        per_map: f32(1 / outH),
      },
      buffers: [read('x', x), write('y', y)],
      body: `${DIVIDE}
${eachItem(SIZE)}
  let place = divide(i, params.channel_quads, params.per_quads);
  let q = i - place * params.channel_quads;
  let row = divide(place, params.pairs, params.per_row);
  let column = (place - row * params.pairs) * 2u;
  let n = divide(row, params.out_h, params.per_map);
  // Unsigned wrap-around turns a negative coordinate into a large one.
  let y0 = (row - n * params.out_h) * ${w.stride}u - params.padding;
  let x0 = column * ${w.stride}u - params.padding;
${columns.map((j) => `  let in${j} = x0 + ${j}u < params.in_w;`).join('\n')}
  var first = ${lowest};
  var second = ${lowest};
${rows.join('\n')}
  let to = (row * params.out_w + column) * params.channel_quads + q;
  store_y(to, first);
  if (column + 1u < params.out_w) { store_y(to + params.channel_quads, second); }
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(y.shape) * 4 * w.kernel * w.kernel,
      bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype) + quadsOf(y.shape) * bytesPerQuad(y.dtype),
    },
  ];
}

export function avgPool<B>(x: Operand<B>, y: Operand<B>, w: PoolWindow): KernelCall<B>[] {
  const count = quadsOf(y.shape);
  return [
    {
      label: 'avgPool.forward',
      uniforms: { count: u32(count), ...windowUniforms(x.shape, y.shape, w) },
      buffers: [read('x', x), write('y', y)],
      body: `${eachQuad(SIZE, 'out')}
  var sum = vec4<f32>(0.0);
${eachPlaceOfWindow('sum += v;')}
  let rows = min(y0 + params.kernel, params.in_h + 2u * params.padding) - y0;
  let columns = min(x0 + params.kernel, params.in_w + 2u * params.padding) - x0;
  store_y(i, sum / f32(rows * columns));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * w.kernel * w.kernel,
      bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype) + count * bytesPerQuad(y.dtype),
    },
  ];
}

/** [N, H, W, C] → [N, C], the mean over the map. */
export function globalAvgPool<B>(x: Operand<B>, y: Operand<B>): KernelCall<B>[] {
  const [, h, w, c] = x.shape;
  const count = quadsOf(y.shape);
  return [
    {
      label: 'globalAvgPool.forward',
      uniforms: { count: u32(count), channel_quads: u32(quads(c)), pixels: u32(h * w) },
      buffers: [read('x', x), write('y', y)],
      body: `${eachItem(SIZE)}
  let q = i % params.channel_quads;
  let first = i / params.channel_quads * params.pixels;
  var sum = vec4<f32>(0.0);
  for (var p = 0u; p < params.pixels; p++) { sum += load_x((first + p) * params.channel_quads + q); }
  store_y(i, sum / f32(params.pixels));
}`,
      workgroups: grid(count, SIZE),
      flops: quadsOf(x.shape) * 4,
      bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype) + count * bytesPerQuad(y.dtype),
    },
  ];
}
