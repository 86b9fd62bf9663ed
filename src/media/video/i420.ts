/**
 * Frames as decoders give them and encoders take them: I420 (YUV 4:2:0, 8 bits), the plane Y, then U and V of half
 * the width and height. Annotating changes only the pixels it draws on; all others go through untouched.
 */
import type { Picture } from '../picture.js';

export interface I420Frame {
  /** Even. */
  readonly width: number;
  /** Even. */
  readonly height: number;
  /** width·height bytes of Y, then a quarter of that of U, then of V. */
  readonly data: Uint8Array;
}

export interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Clockwise quarter turns, in degrees, that take a stored frame to the way it is looked at. */
export type Rotation = 0 | 90 | 180 | 270;

/** Weights of red and blue in luma, by ITU-R BT.601, BT.709 and BT.2020. */
const LUMA = { bt601: [0.299, 0.114], bt709: [0.2126, 0.0722], bt2020: [0.2627, 0.0593] } as const;
export type YuvMatrix = keyof typeof LUMA;

export const frameBytes = (width: number, height: number): number => (width * height * 3) / 2;

/** What a video without colour tags is taken for, as players do: BT.709 from 720 lines, BT.601 below. */
export function matrixOf(tag: string | null | undefined, width: number, height: number): YuvMatrix {
  if (tag === 'bt709') return 'bt709';
  if (tag?.startsWith('bt2020')) return 'bt2020';
  if (tag === 'smpte170m' || tag === 'bt470bg' || tag === 'fcc') return 'bt601';
  return Math.min(width, height) >= 720 ? 'bt709' : 'bt601';
}

/** R, G, B = 255·(y + …) for y, u, v as below: coefficients of the limited range (Y 16…235, U and V 16…240). */
export function yuvCoefficients(matrix: YuvMatrix): {
  y: number;
  rv: number;
  gu: number;
  gv: number;
  bu: number;
} {
  const [r, b] = LUMA[matrix];
  const g = 1 - r - b;
  const chroma = 255 / 224;
  return {
    y: 255 / 219,
    rv: 2 * (1 - r) * chroma,
    gu: (-2 * b * (1 - b) * chroma) / g,
    gv: (-2 * r * (1 - r) * chroma) / g,
    bu: 2 * (1 - b) * chroma,
  };
}

/** Where the displayed pixel (x, y) lies in the stored frame. */
export function toStored(
  x: number,
  y: number,
  { width, height }: { width: number; height: number },
  rotation: Rotation,
): [number, number] {
  if (rotation === 90) return [y, height - 1 - x];
  if (rotation === 180) return [width - 1 - x, height - 1 - y];
  if (rotation === 270) return [width - 1 - y, x];
  return [x, y];
}

/** Size of the frame as it is looked at. */
export function displayed<T extends { width: number; height: number }>(size: T, rotation: Rotation) {
  const { width, height } = size;
  return rotation % 180 === 0 ? { width, height } : { width: height, height: width };
}

/** A rectangle of the displayed frame as RGBA. What lies outside the frame is cut off. */
export function toPicture(frame: I420Frame, area: Rectangle, matrix: YuvMatrix, rotation: Rotation): Picture {
  const size = displayed(frame, rotation);
  const left = Math.max(0, Math.floor(area.x));
  const top = Math.max(0, Math.floor(area.y));
  const width = Math.max(0, Math.min(size.width, Math.ceil(area.x + area.width)) - left);
  const height = Math.max(0, Math.min(size.height, Math.ceil(area.y + area.height)) - top);
  const k = yuvCoefficients(matrix);
  const u0 = frame.width * frame.height;
  const v0 = u0 + u0 / 4;
  const half = frame.width / 2;
  const data = new Uint8ClampedArray(width * height * 4);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [sx, sy] = toStored(left + x, top + y, frame, rotation);
      const chroma = (sy >> 1) * half + (sx >> 1);
      const luma = (frame.data[sy * frame.width + sx] - 16) * k.y;
      const u = frame.data[u0 + chroma] - 128;
      const v = frame.data[v0 + chroma] - 128;
      data[at++] = luma + k.rv * v;
      data[at++] = luma + k.gu * u + k.gv * v;
      data[at++] = luma + k.bu * u;
      data[at++] = 255;
    }
  }
  return { width, height, data };
}

/**
 * Blends RGBA over a rectangle of the displayed frame, in place: Y pixel by pixel, U and V by the mean of each 2×2.
 * Pixels whose overlay is transparent keep their bytes.
 * @param area x, y, width and height even and inside the displayed frame
 * @param overlay straight (not premultiplied) RGBA of that rectangle
 */
export function blend(
  frame: I420Frame,
  area: Rectangle,
  overlay: Uint8Array | Uint8ClampedArray,
  matrix: YuvMatrix,
  rotation: Rotation,
): void {
  const [r, b] = LUMA[matrix];
  const g = 1 - r - b;
  const u0 = frame.width * frame.height;
  const v0 = u0 + u0 / 4;
  const { data } = frame;
  for (let y = 0; y < area.height; y += 2) {
    for (let x = 0; x < area.width; x += 2) {
      let [alpha, cb, cr] = [0, 0, 0];
      for (let i = 0; i < 4; i++) {
        const [dx, dy] = [x + (i & 1), y + (i >> 1)];
        const from = (dy * area.width + dx) * 4;
        const a = overlay[from + 3] / 255;
        if (a === 0) continue;
        const [red, green, blue] = [overlay[from], overlay[from + 1], overlay[from + 2]];
        const luma = r * red + g * green + b * blue;
        const [sx, sy] = toStored(area.x + dx, area.y + dy, frame, rotation);
        const at = sy * frame.width + sx;
        data[at] = Math.round(data[at] * (1 - a) + (16 + (luma * 219) / 255) * a);
        alpha += a / 4;
        cb += ((((blue - luma) / (2 * (1 - b))) * 224) / 255) * (a / 4);
        cr += ((((red - luma) / (2 * (1 - r))) * 224) / 255) * (a / 4);
      }
      if (alpha === 0) continue;
      const [sx, sy] = toStored(area.x + x, area.y + y, frame, rotation);
      const at = (sy >> 1) * (frame.width / 2) + (sx >> 1);
      data[u0 + at] = Math.round(data[u0 + at] * (1 - alpha) + 128 * alpha + cb);
      data[v0 + at] = Math.round(data[v0 + at] * (1 - alpha) + 128 * alpha + cr);
    }
  }
}
