/** [N, H·W·C] in the order given → [N, H, W, C]: what `flatten` does, undone. One invocation a quad of the map. */
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

/** WGSL of the flat index of h, w, c (see `flatIndex` in packing.ts). */
const JOIN: Record<FlattenOrder, string> = {
  chw: '(c * H + h) * W + w',
  cwh: '(c * W + w) * H + h',
  hwc: '(h * W + w) * C + c',
  whc: '(w * H + h) * C + c',
};

export function flattenBackward<B>(dy: Operand<B>, order: FlattenOrder, dx: Operand<B>): KernelCall<B>[] {
  const [, h, w, c] = dx.shape;
  const count = quadsOf(dx.shape);
  return [
    {
      label: `flatten.backward ${order}`,
      uniforms: {
        count: u32(count),
        row_quads: u32(quads(channelsOf(dy.shape))),
        height: u32(h),
        width: u32(w),
        channels: u32(c),
        channel_quads: u32(quads(c)),
      },
      buffers: [read('dy', dy), write('dx', dx)],
      body: `${eachItem(SIZE)}
  let H = params.height; let W = params.width; let C = params.channels;
  let q = i % params.channel_quads;
  let pixel = i / params.channel_quads;
  let w = pixel % W;
  let h = pixel / W % H;
  let n = pixel / (W * H);
  var value = vec4<f32>(0.0);
  for (var k = 0u; k < 4u; k++) {
    let c = q * 4u + k;
    if (c >= C) { break; }
    let f = ${JOIN[order]};
    value[k] = load_dy(n * params.row_quads + f / 4u)[f % 4u];
  }
  store_dx(i, value);
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: count * bytesPerQuad(dx.dtype) * 2,
    },
  ];
}
