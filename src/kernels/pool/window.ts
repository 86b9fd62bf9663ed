/** What the pooling kernels that take any window share: its uniform values and the walk over it. */
import { f32, type Uniform, u32 } from '../../gpu/kernel_call.js';
import { DIVIDE, eachItem, quads } from '../tensor.js';

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
    // For DIVIDE: a division of vectors would cost more than the rest of these kernels.
    per_quads: f32(1 / quads(c)),
    per_in_w: f32(1 / inW),
    per_in_h: f32(1 / inH),
    per_out_w: f32(1 / outW),
    per_out_h: f32(1 / outH),
    per_stride: f32(1 / w.stride),
  };
}

/**
 * A kernel's beginning, an item a quad of the map before (`in`) or after (`out`) pooling: item i is quad q of pixel
 * (n, py, px).
 */
export const eachQuad = (size: number, of: 'in' | 'out'): string => `${DIVIDE}
${eachItem(size)}
  let pixel = divide(i, params.channel_quads, params.per_quads);
  let q = i - pixel * params.channel_quads;
  let row = divide(pixel, params.${of}_w, params.per_${of}_w);
  let px = pixel - row * params.${of}_w;
  let n = divide(row, params.${of}_h, params.per_${of}_h);
  let py = row - n * params.${of}_h;`;

/**
 * Visits the places of the window of output quad i (eachQuad) that lie in the map `x`; `step` sees the window's corner
 * y0, x0 (with the padding), kx, ky and the quad v there.
 */
export const eachPlaceOfWindow = (step: string): string => `  let y0 = py * params.stride;
  let x0 = px * params.stride;
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
