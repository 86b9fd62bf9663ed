import type { Normalisation } from './resize.js';
import type { ChannelOrder } from './warp.js';

interface Bitmap {
  width: number;
  height: number;
  /** RGBA, 8 bits each. */
  data: ArrayLike<number>;
}

/** Adaptive average pooling of a rectangle x0, y0, x1, y1 (exclusive) to [h, w, 3], normalised. */
export function resizeReference(
  p: Bitmap,
  [x0, y0, x1, y1]: readonly number[],
  h: number,
  w: number,
  { mean, scale }: Normalisation,
): Float64Array {
  const out = new Float64Array(h * w * 3);
  for (let i = 0; i < out.length; i++) {
    const [k, column, row] = [i % 3, Math.floor(i / 3) % w, Math.floor(i / 3 / w)];
    let sum = 0;
    let count = 0;
    for (
      let y = y0 + Math.floor((row * (y1 - y0)) / h);
      y < y0 + Math.ceil(((row + 1) * (y1 - y0)) / h);
      y++
    ) {
      for (
        let x = x0 + Math.floor((column * (x1 - x0)) / w);
        x < x0 + Math.ceil(((column + 1) * (x1 - x0)) / w);
        x++
      ) {
        sum += p.data[(y * p.width + x) * 4 + k];
        count++;
      }
    }
    out[i] = (sum / count - mean) * scale;
  }
  return out;
}

/** Mean of samples² bilinear samples at (u, v) = M·(x, y, 1), black outside, normalised: [h, w, C]. */
export function warpReference(
  p: Bitmap,
  m: readonly number[],
  h: number,
  w: number,
  o: Normalisation & { order: ChannelOrder; samples?: number },
): Float64Array {
  const { samples: k = 1 } = o;
  const offset = (s: number) => (s + 0.5) / k - 0.5;
  const pixel = (x: number, y: number, k: number) =>
    x < 0 || y < 0 || x >= p.width || y >= p.height ? 0 : p.data[(y * p.width + x) * 4 + k];
  const out: number[] = [];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const rgb = [0, 0, 0];
      for (let s = 0; s < k * k; s++) {
        const [sx, sy] = [x + offset(s % k), y + offset(Math.floor(s / k))];
        const [u, v] = [m[0] * sx + m[1] * sy + m[2], m[3] * sx + m[4] * sy + m[5]];
        const [i, j] = [Math.floor(u), Math.floor(v)];
        for (let c = 0; c < 3; c++) {
          const above = pixel(i, j, c) * (1 - (u - i)) + pixel(i + 1, j, c) * (u - i);
          const below = pixel(i, j + 1, c) * (1 - (u - i)) + pixel(i + 1, j + 1, c) * (u - i);
          rgb[c] += (above * (1 - (v - j)) + below * (v - j)) / (k * k);
        }
      }
      const values =
        o.order === 'gray'
          ? [0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]]
          : o.order === 'bgr'
            ? rgb.reverse()
            : rgb;
      out.push(...values.map((value) => (value - o.mean) * o.scale));
    }
  }
  return Float64Array.from(out);
}

/** An I420 frame as RGBA, turned clockwise by quarter turns; coefficients as in yuv.ts. */
export function yuvReference(
  yuv: ArrayLike<number>,
  width: number,
  height: number,
  rotation: number,
  k: { y: number; rv: number; gu: number; gv: number; bu: number },
): Uint8Array {
  const [w, h] = rotation % 180 === 0 ? [width, height] : [height, width];
  const out = new Uint8Array(w * h * 4);
  const byte = (value: number) => Math.floor(Math.min(255, Math.max(0, value)) + 0.5);
  for (let sy = 0; sy < height; sy++) {
    for (let sx = 0; sx < width; sx++) {
      // Where a clockwise turn carries the stored pixel.
      let [x, y] = [sx, sy];
      if (rotation === 90) [x, y] = [height - 1 - sy, sx];
      if (rotation === 180) [x, y] = [width - 1 - sx, height - 1 - sy];
      if (rotation === 270) [x, y] = [sy, width - 1 - sx];
      const chroma = width * height + (sy >> 1) * (width / 2) + (sx >> 1);
      const luma = (yuv[sy * width + sx] - 16) * k.y;
      const u = yuv[chroma] - 128;
      const v = yuv[chroma + (width * height) / 4] - 128;
      out.set([luma + k.rv * v, luma + k.gu * u + k.gv * v, luma + k.bu * u, 255].map(byte), (y * w + x) * 4);
    }
  }
  return out;
}
