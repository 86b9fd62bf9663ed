/**
 * [N, H, W, C] → [N, H·W·C] with the axes in the wished order (see `flatIndex` in packing.ts). One invocation an
 * output quad: each of its four elements is traced back to its place in the map.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { FlattenOrder } from '../packing.js';
import {
  bytesPerQuad,
  channelsOf,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  write,
} from '../tensor.js';

const SIZE = 64;

/** WGSL that turns the flat index f into h, w, c. */
const SPLIT: Record<FlattenOrder, string> = {
  chw: 'w = f % W; h = f / W % H; c = f / (W * H);',
  cwh: 'h = f % H; w = f / H % W; c = f / (W * H);',
  hwc: 'c = f % C; w = f / C % W; h = f / (W * C);',
  whc: 'c = f % C; h = f / C % H; w = f / (H * C);',
};

export function flatten<B>(x: Operand<B>, order: FlattenOrder, y: Operand<B>): KernelCall<B>[] {
  const [, h, w, c] = x.shape;
  const count = quadsOf(y.shape);
  return [
    {
      label: `flatten.forward ${order}`,
      uniforms: {
        count: u32(count),
        features: u32(channelsOf(y.shape)),
        row_quads: u32(quads(channelsOf(y.shape))),
        height: u32(h),
        width: u32(w),
        channels: u32(c),
        channel_quads: u32(quads(c)),
      },
      buffers: [read('x', x), write('y', y)],
      body: `${eachItem(SIZE)}
  let H = params.height; let W = params.width; let C = params.channels;
  let n = i / params.row_quads;
  var value = vec4<f32>(0.0);
  for (var k = 0u; k < 4u; k++) {
    let f = i % params.row_quads * 4u + k;
    if (f >= params.features) { break; }
    var h: u32; var w: u32; var c: u32;
    ${SPLIT[order]}
    value[k] = load_x(((n * H + h) * W + w) * params.channel_quads + c / 4u)[c % 4u];
  }
  store_y(i, value);
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype) + count * bytesPerQuad(y.dtype),
    },
  ];
}
