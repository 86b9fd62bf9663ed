/** Samples varied each time they are taken: mirrored, moved a little, in other light. */
import { MIRRORED_POINTS } from '../../face/boxes.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import type { Random } from '../random.js';

/** Numbers of a sample's targets: box, points. */
export const TARGETS = 14;

/** Samples of one net. */
export interface Samples {
  size: number;
  count: number;
  /** TARGETS a sample. */
  targets: Float32Array;
  tasks: Uint8Array;
  pixels: Uint8Array;
}

export interface SampleBatch {
  x: Float32Array;
  tasks: Uint32Array;
  boxTarget: Float32Array;
  pointsTarget: Float32Array;
}

export interface Variation {
  isMirrored: boolean;
  /** How far the window moves, in pixels of the sample. */
  move: readonly [number, number];
  /** Of values from −1 to 1. */
  contrast: number;
  brightness: number;
}

export const AS_IT_IS: Variation = { isMirrored: false, move: [0, 0], contrast: 1, brightness: 0 };

/** Whose samples are varied: P-Net's box targets are not those of a mirror image (samples.ts), and it has windows enough. */
export const IS_VARIED: Record<MtcnnNet, boolean> = { pnet: false, rnet: true, onet: true };

/** Share of a sample's side by which it moves at most. What comes in at the border is the border, repeated. */
const MOST_MOVE = 1 / 24;

export function variationOf(random: Random, size: number): Variation {
  const most = Math.round(size * MOST_MOVE);
  const move = () => random.below(2 * most + 1) - most;
  return {
    isMirrored: random.chance(0.5),
    move: [move(), move()],
    contrast: random.between(0.85, 1.15),
    brightness: random.between(-0.1, 0.1),
  };
}

/** Sample `i` as row `row` of a batch. */
export function takeSample(s: Samples, i: number, v: Variation, batch: SampleBatch, row: number): void {
  const { size, targets } = s;
  batch.tasks[row] = s.tasks[i];
  takePixels(s, i, v, batch.x, row);
  const [x1, y1, x2, y2, ...points] = targets.subarray(i * TARGETS, (i + 1) * TARGETS);
  const [right, down] = [v.move[0] / size, v.move[1] / size];
  const [left, end] = [x1 - right, x2 - right];
  batch.boxTarget.set(
    [v.isMirrored ? -end : left, y1 - down, v.isMirrored ? -left : end, y2 - down],
    row * 4,
  );
  for (let k = 0; k < 5; k++) {
    const from = v.isMirrored ? MIRRORED_POINTS[k] : k;
    const x = points[from] - right;
    batch.pointsTarget[row * 10 + k] = v.isMirrored ? 1 - x : x;
    batch.pointsTarget[row * 10 + 5 + k] = points[5 + from] - down;
  }
}

function takePixels({ size, pixels }: Samples, i: number, v: Variation, x: Float32Array, row: number): void {
  const last = size - 1;
  const inside = (place: number) => (place < 0 ? 0 : place > last ? last : place);
  const gain = v.contrast / 128;
  const offset = v.brightness - 127.5 * gain;
  const columns = Int32Array.from(
    { length: size },
    (_, j) => 3 * inside((v.isMirrored ? last - j : j) + v.move[0]),
  );
  let to = row * size * size * 3;
  for (let y = 0; y < size; y++) {
    const line = (i * size + inside(y + v.move[1])) * size * 3;
    for (let j = 0; j < size; j++) {
      const from = line + columns[j];
      for (let k = 0; k < 3; k++) {
        const value = pixels[from + k] * gain + offset;
        x[to++] = value < -1 ? -1 : value > 1 ? 1 : value;
      }
    }
  }
}
