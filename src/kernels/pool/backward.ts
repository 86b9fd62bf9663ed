/**
 * Backward of pooling, gathered: an invocation owns an input quad and adds what the windows over it give, so
 * that no two write the same place. A maximum goes to the first place of its window (rows first) that holds it, as
 * PyTorch does. Averages divide as the forward pass does.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, eachItem, grid, type Operand, quads, quadsOf, read, write } from '../tensor.js';
import type { PoolWindow } from './forward.js';

const SIZE = 64;

function gather<B>(
  label: string,
  maps: readonly [string, Operand<B>][],
  dy: Operand<B>,
  dx: Operand<B>,
  w: PoolWindow,
  setup: string,
  step: string,
): KernelCall<B>[] {
  const [, inH, inW, c] = dx.shape;
  const [, outH, outW] = dy.shape;
  const count = quadsOf(dx.shape);
  return [
    {
      label,
      uniforms: {
        count: u32(count),
        channel_quads: u32(quads(c)),
        in_h: u32(inH),
        in_w: u32(inW),
        out_h: u32(outH),
        out_w: u32(outW),
        kernel: u32(w.kernel),
        stride: u32(w.stride),
        padding: u32(w.padding),
      },
      buffers: [...maps.map(([name, m]) => read(name, m)), read('dy', dy), write('dx', dx)],
      body: `
fn input_at(n: u32, iy: u32, ix: u32, q: u32) -> u32 { return ((n * params.in_h + iy) * params.in_w + ix) * params.channel_quads + q; }
${eachItem(SIZE)}
  let q = i % params.channel_quads;
  let pixel = i / params.channel_quads;
  let ix = pixel % params.in_w;
  let iy = pixel / params.in_w % params.in_h;
  let n = pixel / (params.in_w * params.in_h);
  // The windows that cover this place, in coordinates with the padding.
  let py = iy + params.padding;
  let px = ix + params.padding;
  let from_y = select(0u, (py - params.kernel) / params.stride + 1u, py >= params.kernel);
  let from_x = select(0u, (px - params.kernel) / params.stride + 1u, px >= params.kernel);
  let to_y = min(py / params.stride, params.out_h - 1u);
  let to_x = min(px / params.stride, params.out_w - 1u);
  ${setup}
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

export const maxPoolBackward = <B>(
  x: Operand<B>,
  y: Operand<B>,
  dy: Operand<B>,
  dx: Operand<B>,
  w: PoolWindow,
) =>
  gather(
    'maxPool.backward',
    [
      ['x', x],
      ['y', y],
    ],
    dy,
    dx,
    w,
    'let here = load_x(i);',
    `let most = load_y(o);
      var mine = here == most;
      if (any(mine)) {
        // Earlier places of the window with the same value go first.
        for (var wy = oy * params.stride; wy <= py; wy++) {
          for (var wx = ox * params.stride; wx < ox * params.stride + params.kernel; wx++) {
            if (wy == py && wx >= px) { break; }
            let ey = wy - params.padding;
            let ex = wx - params.padding;
            if (ey >= params.in_h || ex >= params.in_w) { continue; }
            mine = mine & (load_x(input_at(n, ey, ex, q)) != most);
          }
        }
        sum += select(vec4<f32>(0.0), load_dy(o), mine);
      }`,
  );

export const avgPoolBackward = <B>(dy: Operand<B>, dx: Operand<B>, w: PoolWindow) =>
  gather(
    'avgPool.backward',
    [],
    dy,
    dx,
    w,
    '',
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
