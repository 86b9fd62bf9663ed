/** Square windows of pictures as RGB bytes, size × size × 3, the way the cascade will see them. */
import { type Box, pixelsOf } from '../../face/boxes.js';
import type { TurnedWindow } from '../../face/view.js';
import { applyOrientation, type Picture } from '../../media/picture.js';
import type { Random } from '../random.js';
import type { AnnotatedFace } from './annotations.js';

/**
 * The part of a window inside the picture, resized by area to fill the square: what the detector does with a box at the
 * border (kernels/picture/resize.ts).
 * @returns false where the window lies outside.
 */
export function cropWindow(p: Picture, window: Box, size: number, out: Uint8Array): boolean {
  // pixelsOf counts from one.
  const inside = pixelsOf({ ...window, x1: window.x1 + 1, y1: window.y1 + 1 }, p.width, p.height);
  if (!inside) return false;
  const [left, top, right, bottom] = inside;
  const [w, h] = [right - left, bottom - top];
  for (let i = 0; i < size; i++) {
    const y0 = top + Math.floor((i * h) / size);
    const y1 = top + Math.ceil(((i + 1) * h) / size);
    for (let j = 0; j < size; j++) {
      const x0 = left + Math.floor((j * w) / size);
      const x1 = left + Math.ceil(((j + 1) * w) / size);
      let [r, g, b] = [0, 0, 0];
      for (let y = y0; y < y1; y++) {
        for (let x = x0, at = (y * p.width + x0) * 4; x < x1; x++, at += 4) {
          r += p.data[at];
          g += p.data[at + 1];
          b += p.data[at + 2];
        }
      }
      const count = (y1 - y0) * (x1 - x0);
      const to = (i * size + j) * 3;
      out[to] = r / count + 0.5;
      out[to + 1] = g / count + 0.5;
      out[to + 2] = b / count + 0.5;
    }
  }
  return true;
}

/** A turned window by bilinear samples, as many a pixel as it is reduced; beyond the border the border goes on. */
export function cropTurned(p: Picture, w: TurnedWindow, size: number, out: Uint8Array): void {
  const samples = Math.max(1, Math.min(4, Math.ceil(w.side / size)));
  const [cos, sin] = [Math.cos(w.angle) * w.side, Math.sin(w.angle) * w.side];
  const [right, bottom] = [p.width - 1, p.height - 1];
  const fine = size * samples;
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) {
      let [r, g, b] = [0, 0, 0];
      for (let k = 0; k < samples * samples; k++) {
        const u = (j * samples + (k % samples) + 0.5) / fine - 0.5;
        const v = (i * samples + Math.floor(k / samples) + 0.5) / fine - 0.5;
        const x = Math.min(right, Math.max(0, w.centre[0] + cos * u - sin * v - 0.5));
        const y = Math.min(bottom, Math.max(0, w.centre[1] + sin * u + cos * v - 0.5));
        const [x0, y0] = [Math.floor(x), Math.floor(y)];
        const [s, t] = [x - x0, y - y0];
        const at = (y0 * p.width + x0) * 4;
        const next = x0 < right ? 4 : 0;
        const below = y0 < bottom ? p.width * 4 : 0;
        const [a, c] = [(1 - s) * (1 - t), s * (1 - t)];
        const [d, e] = [(1 - s) * t, s * t];
        r += a * p.data[at] + c * p.data[at + next] + d * p.data[at + below] + e * p.data[at + below + next];
        g +=
          a * p.data[at + 1] +
          c * p.data[at + next + 1] +
          d * p.data[at + below + 1] +
          e * p.data[at + below + next + 1];
        b +=
          a * p.data[at + 2] +
          c * p.data[at + next + 2] +
          d * p.data[at + below + 2] +
          e * p.data[at + below + next + 2];
      }
      const to = (i * size + j) * 3;
      const count = samples * samples;
      out[to] = r / count + 0.5;
      out[to + 1] = g / count + 0.5;
      out[to + 2] = b / count + 0.5;
    }
  }
}

/** A picture turned clockwise by quarters: its faces are nothing to learn from then. */
export function turnedByQuarters(
  picture: Picture,
  faces: readonly AnnotatedFace[],
  quarters: 0 | 1 | 2 | 3,
): { picture: Picture; faces: readonly AnnotatedFace[] } {
  let turned = faces;
  let { width, height } = picture;
  for (let k = 0; k < quarters; k++) {
    const bottom = height;
    turned = turned.map(({ box: b }) => ({
      box: { x1: bottom - b.y2, y1: b.x1, x2: bottom - b.y1, y2: b.x2 },
      ignored: true,
    }));
    [width, height] = [height, width];
  }
  return { picture: applyOrientation(picture, [1, 6, 3, 8][quarters]), faces: turned };
}

/** Left and right swapped, in place. */
export function mirrorPixels(pixels: Uint8Array, size: number): void {
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size >> 1; x++) {
      for (let k = 0; k < 3; k++) {
        const a = (y * size + x) * 3 + k;
        const b = (y * size + size - 1 - x) * 3 + k;
        const swapped = pixels[a];
        pixels[a] = pixels[b];
        pixels[b] = swapped;
      }
    }
  }
}

/**
 * Brightness, contrast and saturation, the colour of the light and the side that it comes from; now and then gray or blurred. In
 * place.
 */
export function changeColours(pixels: Uint8Array, size: number, random: Random): void {
  if (random.chance(0.15)) soften(pixels, size);
  if (random.chance(0.4)) return;
  const saturation = random.chance(0.12) ? 0 : random.between(0.6, 1.4);
  const contrast = random.between(0.7, 1.3);
  const brightness = random.between(-30, 30);
  const isTinted = random.chance(0.4);
  const gain = [0, 1, 2].map(() => (isTinted ? random.between(0.75, 1.25) : 1));
  const isLit = random.chance(0.3);
  const slope = [0, 1].map(() => (isLit ? random.between(-60, 60) / size : 0));
  const middle = (size - 1) / 2;
  for (let i = 0, at = 0; i < pixels.length; i += 3, at++) {
    const gray = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    const light =
      brightness + slope[0] * ((at % size) - middle) + slope[1] * (Math.floor(at / size) - middle);
    for (let k = 0; k < 3; k++) {
      const v = ((gray + (pixels[i + k] - gray) * saturation - 127.5) * contrast + 127.5 + light) * gain[k];
      pixels[i + k] = v < 0 ? 0 : v > 255 ? 255 : v + 0.5;
    }
  }
}

/** Binomial blur (1 2 1)/4 both ways. */
function soften(pixels: Uint8Array, size: number): void {
  for (const step of [3, 3 * size]) {
    const from = pixels.slice();
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const place = step === 3 ? x : y;
        const at = (y * size + x) * 3;
        const before = place > 0 ? step : 0;
        const after = place < size - 1 ? step : 0;
        for (let k = at; k < at + 3; k++)
          pixels[k] = (from[k - before] + 2 * from[k] + from[k + after] + 2) >> 2;
      }
    }
  }
}
