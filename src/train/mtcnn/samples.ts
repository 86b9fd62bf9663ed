/**
 * What the three nets learn from, after Zhang et al. 2016, section 3.1: windows of pictures, told apart by their overlap
 * (intersection over union) with the nearest face:
 *
 *   negative   below 0.3          classification: background
 *   part       0.4 to 0.65        box only
 *   positive   0.65 and more      classification: face, and box
 *   landmark   a face with known points, at least half overlapped: points, besides what it is otherwise
 *
 * Windows in between teach nothing, nor do those on faces that are marked as invalid.
 */
import { type Box, MIRRORED_POINTS, type Regression } from '../../face/boxes.js';
import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import type { Random } from '../random.js';
import { type AnnotatedFace, nearest, type Point } from './annotations.js';

export const NEGATIVE = TASK.classify;
export const POSITIVE = TASK.classify | TASK.face | TASK.box;
export const PART = TASK.box;
export const LANDMARK = TASK.points;

const OVERLAP = { negative: 0.3, part: 0.4, positive: 0.65, points: 0.5 };

/** Task bits, and the face they are about. */
export interface Lesson {
  tasks: number;
  face?: AnnotatedFace;
}

/** @returns undefined for a window that teaches nothing. */
export function lessonOf(window: Box, faces: readonly AnnotatedFace[]): Lesson | undefined {
  const { face, overlap } = nearest(window, faces);
  if (overlap < OVERLAP.negative) return { tasks: NEGATIVE };
  if (face!.ignored || overlap < OVERLAP.part) return undefined;
  const points = face!.points && overlap >= OVERLAP.points ? LANDMARK : 0;
  return { tasks: (overlap >= OVERLAP.positive ? POSITIVE : PART) | points, face };
}

/**
 * The box regressions that take a square window to a face by the detector's own arithmetic (face/boxes.ts): R- and O-Net's
 * are fractions of the window, P-Net's of the box of its cell, which begins a twelfth of the window further in.
 */
export function regressionOf(net: MtcnnNet, w: Box, face: Box): Regression {
  const side = w.x2 - w.x1;
  if (net !== 'pnet')
    return [
      (face.x1 - w.x1) / side,
      (face.y1 - w.y1) / side,
      (face.x2 - w.x2) / side,
      (face.y2 - w.y2) / side,
    ];
  const edge = side / 12;
  const length = side - edge;
  return [
    (face.x1 + 1 - w.x1 - edge) / length,
    (face.y1 + 1 - w.y1 - edge) / length,
    (face.x2 - w.x2) / length,
    (face.y2 - w.y2) / length,
  ];
}

/** Points as fractions of a window: x1 … x5, y1 … y5, as O-Net gives them. */
export const pointsOf = (w: Box, points: readonly Point[]): number[] => [
  ...points.map(([x]) => (x - w.x1) / (w.x2 - w.x1)),
  ...points.map(([, y]) => (y - w.y1) / (w.y2 - w.y1)),
];

/** A face in a window that is mirrored about its own middle. */
export function mirrorFace({ box, points, ignored }: AnnotatedFace, w: Box): AnnotatedFace {
  const x = (v: number) => w.x1 + w.x2 - v;
  return {
    box: { x1: x(box.x2), y1: box.y1, x2: x(box.x1), y2: box.y2 },
    ignored,
    points: points && MIRRORED_POINTS.map((i) => [x(points[i][0]), points[i][1]] as const),
  };
}

/** A square about a face: sides 0.8 of the smaller to 1.25 of the larger, the middle moved by up to a fifth of the face. */
export function windowNear({ x1, y1, x2, y2 }: Box, random: Random): Box {
  const [w, h] = [x2 - x1, y2 - y1];
  const half = random.between(0.8 * Math.min(w, h), 1.25 * Math.max(w, h)) / 2;
  const x = (x1 + x2) / 2 + random.between(-0.2, 0.2) * w;
  const y = (y1 + y2) / 2 + random.between(-0.2, 0.2) * h;
  return { x1: x - half, y1: y - half, x2: x + half, y2: y + half };
}

/** A square that touches a face: for windows that hold a bit of one and are none. */
export function windowBeside({ x1, y1, x2, y2 }: Box, random: Random): Box {
  const half = (Math.max(x2 - x1, y2 - y1) * Math.exp(random.between(-0.9, 0.6))) / 2;
  const x = random.between(x1 - half, x2 + half);
  const y = random.between(y1 - half, y2 + half);
  return { x1: x - half, y1: y - half, x2: x + half, y2: y + half };
}

/** Any square of a picture from 12 pixels to its shorter side; small ones are likelier. */
export function windowAnywhere(width: number, height: number, random: Random): Box {
  const most = Math.min(width, height);
  const side = 12 * Math.exp(random.next() * Math.log(Math.max(1, most / 12)));
  const x = random.between(0, width - side);
  const y = random.between(0, height - side);
  return { x1: x, y1: y, x2: x + side, y2: y + side };
}
