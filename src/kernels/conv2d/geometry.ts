import { type Uniform, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, quads } from '../tensor.js';
import type { Conv2dCall, Conv2dShape } from './types.js';

/** Uniform fields that every variant reads. Channel counts are in quads. */
export function geometryUniforms(s: Conv2dShape): Record<string, Uniform> {
  return {
    pixels: u32(s.batch * s.outHeight * s.outWidth),
    in_h: u32(s.inHeight),
    in_w: u32(s.inWidth),
    in_q: u32(quads(s.inChannels)),
    out_h: u32(s.outHeight),
    out_w: u32(s.outWidth),
    out_q: u32(quads(s.outChannels)),
    kernel_h: u32(s.kernelHeight),
    kernel_w: u32(s.kernelWidth),
    stride: u32(s.stride),
    padding: u32(s.padding),
    dilation: u32(s.dilation),
  };
}

/** Multiply-adds count as two; padding channels are not counted. */
export function convFlops(s: Conv2dShape): number {
  const perOutput = s.kernelHeight * s.kernelWidth * (s.inChannels / s.groups);
  return 2 * s.batch * s.outHeight * s.outWidth * s.outChannels * perOutput;
}

/** Each operand once. */
export function convBytes<B>(call: Conv2dCall<B>, weightBytes: number): number {
  const s = call.shape;
  const map = (h: number, w: number, c: number, dtype: 'f32' | 'f16') =>
    s.batch * h * w * quads(c) * bytesPerQuad(dtype);
  return (
    map(s.inHeight, s.inWidth, s.inChannels, call.x.dtype) +
    map(s.outHeight, s.outWidth, s.outChannels, call.y.dtype) * (call.residual ? 2 : 1) +
    weightBytes
  );
}

/** A plain GEMM over the pixels as they lie in memory. */
export const isPointwise = (s: Conv2dShape): boolean =>
  s.kernelHeight === 1 && s.kernelWidth === 1 && s.stride === 1 && s.padding === 0;

/** One output a picture, which every pixel reaches through a tap of its own: a dense layer, or one a channel. */
export const coversMap = (s: Conv2dShape): boolean =>
  s.padding === 0 &&
  s.kernelHeight === s.inHeight &&
  s.kernelWidth === s.inWidth &&
  s.outHeight * s.outWidth === 1 &&
  (s.dilation === 1 || s.kernelHeight * s.kernelWidth === 1);
