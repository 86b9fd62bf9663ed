import type { Picture } from '../media/picture.js';
import { type Affine, invert, type Points, similarity, templateFor } from './align.js';
import type { Box } from './boxes.js';

/** The part of a picture inside a box widened by a fifth each side; undefined where nothing is left. */
export function cropFace(picture: Picture, box: Box, margin = 0.2): Picture | undefined {
  const dx = (box.x2 - box.x1) * margin;
  const dy = (box.y2 - box.y1) * margin;
  const x0 = Math.max(0, Math.floor(box.x1 - dx));
  const y0 = Math.max(0, Math.floor(box.y1 - dy));
  const x1 = Math.min(picture.width, Math.ceil(box.x2 + dx));
  const y1 = Math.min(picture.height, Math.ceil(box.y2 + dy));
  if (x1 <= x0 || y1 <= y0) return undefined;
  const width = x1 - x0;
  const data = new Uint8Array(width * (y1 - y0) * 4);
  for (let y = y0; y < y1; y++) {
    const from = (y * picture.width + x0) * 4;
    data.set(picture.data.subarray(from, from + width * 4), (y - y0) * width * 4);
  }
  return { width, height: y1 - y0, data };
}

/**
 * A face aligned to the template on the CPU: bilinear, black outside, as the GPU's warp does it. For writing data
 * sets; recognition aligns on the GPU.
 */
export function alignFace(picture: Picture, landmarks: Points, height = 112, width = 112): Picture {
  const [a, b, c, d, e, f]: Affine = invert(similarity(landmarks, templateFor(height, width)));
  const data = new Uint8Array(width * height * 4);
  const pixel = (x: number, y: number, k: number) =>
    x < 0 || y < 0 || x >= picture.width || y >= picture.height
      ? 0
      : picture.data[(y * picture.width + x) * 4 + k];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const u = a * x + b * y + c;
      const v = d * x + e * y + f;
      const [x0, y0] = [Math.floor(u), Math.floor(v)];
      const [s, t] = [u - x0, v - y0];
      const at = (y * width + x) * 4;
      for (let k = 0; k < 3; k++) {
        const above = pixel(x0, y0, k) * (1 - s) + pixel(x0 + 1, y0, k) * s;
        const below = pixel(x0, y0 + 1, k) * (1 - s) + pixel(x0 + 1, y0 + 1, k) * s;
        data[at + k] = Math.round(above * (1 - t) + below * t);
      }
      data[at + 3] = 255;
    }
  }
  return { width, height, data };
}
