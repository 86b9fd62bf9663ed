/** What the pooling kernels that take any window share: its uniform values and the walk over it. */
import { type Uniform, u32 } from '../../gpu/kernel_call.js';
import { quads } from '../tensor.js';

export interface PoolWindow {
  kernel: number;
  stride: number;
  padding: number;
}

/** @param map shape before pooling, [N, H, W, C]; @param pooled shape after it. */
export function windowUniforms(
  map: readonly number[],
  pooled: readonly number[],
  w: PoolWindow,
): Record<string, Uniform> {
  const [, inH, inW, c] = map;
  const [, outH, outW] = pooled;
  return {
    channel_quads: u32(quads(c)),
    in_h: u32(inH),
    in_w: u32(inW),
    out_h: u32(outH),
    out_w: u32(outW),
    kernel: u32(w.kernel),
    stride: u32(w.stride),
    padding: u32(w.padding),
  };
}

/**
 * Visits the places of output quad i's window that lie in the map `x`; `step` sees the window's corner y0, x0 (with
 * the padding), kx, ky and the quad v there.
 */
export const eachPlaceOfWindow = (step: string): string => `  let q = i % params.channel_quads;
  let pixel = i / params.channel_quads;
  let y0 = pixel / params.out_w % params.out_h * params.stride;
  let x0 = pixel % params.out_w * params.stride;
  let n = pixel / (params.out_w * params.out_h);
  for (var ky = 0u; ky < params.kernel; ky++) {
    // Unsigned wrap-around turns a negative coordinate into a large one.
    let iy = y0 + ky - params.padding;
    if (iy >= params.in_h) { continue; }
    for (var kx = 0u; kx < params.kernel; kx++) {
      let ix = x0 + kx - params.padding;
      if (ix >= params.in_w) { continue; }
      let v = load_x(((n * params.in_h + iy) * params.in_w + ix) * params.channel_quads + q);
      ${step}
    }
  }`;
