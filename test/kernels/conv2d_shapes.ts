/** Geometries for the tests of convolution, forward and backward. */
import type { Conv2dShape } from '../../src/kernels/conv2d/types.js';

/** batch, height, width, channels in and out, then what differs from a 3×3 at stride 1 with padding 1. */
export function shapeOf(
  batch: number,
  inHeight: number,
  inWidth: number,
  inChannels: number,
  outChannels: number,
  rest: Partial<Conv2dShape> = {},
): Conv2dShape {
  const s = { kernelHeight: 3, kernelWidth: 3, stride: 1, padding: 1, dilation: 1, groups: 1, ...rest };
  const out = (size: number, kernel: number) =>
    Math.floor((size + 2 * s.padding - s.dilation * (kernel - 1) - 1) / s.stride) + 1;
  const outHeight = out(inHeight, s.kernelHeight);
  const outWidth = out(inWidth, s.kernelWidth);
  return { batch, inHeight, inWidth, inChannels, outChannels, outHeight, outWidth, ...s };
}

export const k1 = { kernelHeight: 1, kernelWidth: 1, padding: 0 };

/** As many groups as channels. */
export const depthwise = (
  batch: number,
  h: number,
  w: number,
  channels: number,
  rest: Partial<Conv2dShape> = {},
): Conv2dShape => shapeOf(batch, h, w, channels, channels, { groups: channels, ...rest });
