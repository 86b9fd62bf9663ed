/**
 * The square in which O-Net looks at a face a second time: turned, moved and scaled so that the points of the first look lie as
 * near as they can to where they usually lie. Training shows it such squares too (train/mtcnn/gather.ts).
 */
import { type Points, similarity } from './align.js';

/** A turned square: (u, v) in −½ … ½ of its side lies at centre + side·R(angle)·(u, v). */
export interface TurnedWindow {
  /** In pixels; the picture's corner is at 0, 0 and its first pixel's middle at ½, ½. */
  centre: readonly [number, number];
  side: number;
  /** Radians, clockwise as seen. */
  angle: number;
}

/**
 * Eyes, nose and corners of the mouth as fractions of the square: the means over aligned faces in the square about their box,
 * made even, and the square 0.88 of that one's, which still shows all five of nearly every face.
 */
const USUAL: Points = [
  [0.315, 0.375],
  [0.685, 0.375],
  [0.5, 0.614],
  [0.341, 0.792],
  [0.659, 0.792],
];

/** The square in which five points lie nearest to their usual places, by least squares. */
export function viewOf(points: Points): TurnedWindow {
  const [cos, minusSin, left, sin, , top] = similarity(USUAL, points);
  const centre = [(cos + minusSin) / 2 + left, (sin + cos) / 2 + top] as const;
  return { centre, side: Math.hypot(cos, sin), angle: Math.atan2(sin, cos) };
}

/** Where a point of the picture lies in a turned square, as fractions of its side from its top left corner. */
export function inTurned([x, y]: readonly [number, number], w: TurnedWindow): [number, number] {
  const [dx, dy] = [(x - w.centre[0]) / w.side, (y - w.centre[1]) / w.side];
  const [cos, sin] = [Math.cos(w.angle), Math.sin(w.angle)];
  return [0.5 + cos * dx + sin * dy, 0.5 - sin * dx + cos * dy];
}

/** The point of the picture at fractions (u, v) of a turned square. */
export function fromTurned([u, v]: readonly [number, number], w: TurnedWindow): [number, number] {
  const [cos, sin] = [Math.cos(w.angle) * w.side, Math.sin(w.angle) * w.side];
  return [w.centre[0] + cos * (u - 0.5) - sin * (v - 0.5), w.centre[1] + sin * (u - 0.5) + cos * (v - 0.5)];
}
