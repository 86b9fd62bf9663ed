/** O-Net's second look at faces: where their points are, from squares turned with each and from their mirror images. */
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { Model } from '../graph/model.js';
import { warpFaces } from '../kernels/picture/warp.js';
import { ONET_SIZE } from '../nets/mtcnn.js';
import type { Points } from './align.js';
import { MIRRORED_POINTS } from './boxes.js';
import type { GpuPicture } from './gpu_picture.js';
import { fromTurned, type TurnedWindow, viewOf } from './view.js';

/** Squares a batch, each with its mirror image; a last part is filled up with empty work. */
const BATCHES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/** Sizes and turns (radians) at which a face is looked at, beside where its points put it: what one is wrong about another may not be. */
const LOOKS = [
  [1, 0],
  [0.93, 0.07],
  [1.07, -0.07],
] as const;
/**
 * The cascade cuts windows out at whole pixels, rounded down (`pixelsOf`), but takes boxes and points for fractions of the
 * window before that: what it says lies half a pixel too far right and down, in the mean. The second look cuts exactly.
 * It keeps the cascade's coordinates, which everything made for MTCNN expects.
 */
const ROUNDED_OFF = 0.5;
/** Bilinear samples a pixel and direction, at most. */
const MOST_SAMPLES = 4;

/** What the looks at a face agree on. */
export interface Seen {
  points: Points;
  /** Probability that it is none. */
  background: number;
}

export class SecondLook {
  readonly #maps: BufferRange;

  constructor(
    private readonly gpu: Gpu,
    private readonly onet: Model,
    private readonly normalisation: { mean: number; scale: number },
  ) {
    const size = BATCHES[BATCHES.length - 1] * 32;
    this.#maps = { buffer: gpu.createStorage(size, 'second look'), offset: 0, size };
  }

  /** @param first five points a face, in pixels of the GPU's picture. */
  async look(picture: GpuPicture, first: readonly Points[]): Promise<Seen[]> {
    const views = first.flatMap((points) => looksAt(viewOf(moved(points, -ROUNDED_OFF))));
    const seen: Seen[] = [];
    const largest = BATCHES[BATCHES.length - 1];
    for (let at = 0; at < views.length; at += largest)
      seen.push(...(await this.batch(picture, views.slice(at, at + largest))));
    return first.map((_, i) => meanOf(seen.slice(i * LOOKS.length, (i + 1) * LOOKS.length)));
  }

  private async batch(picture: GpuPicture, views: readonly TurnedWindow[]): Promise<Seen[]> {
    const count = BATCHES.find((b) => b >= views.length)!;
    const executable = await this.onet.at([2 * count, ONET_SIZE, ONET_SIZE, 3]);
    const x = executable.inputs.get('x')!;
    const maps = new Float32Array(count * 8);
    for (const [i, view] of views.entries()) maps.set(mapOf(view), i * 8);
    this.gpu.write(this.#maps.buffer, 0, maps);
    const warp = warpFaces(picture.operand, this.#maps, x, {
      ...this.normalisation,
      order: 'rgb',
      mirror: true,
    });
    const { points: values, prob } = await executable.runAfter(warp, ['points', 'prob']);
    return views.map((view, i) => {
      const straight = values.subarray(10 * i, 10 * i + 10);
      const mirrored = values.subarray(10 * (count + i), 10 * (count + i) + 10);
      const points = MIRRORED_POINTS.map((m, k) =>
        fromTurned([(straight[k] + 1 - mirrored[m]) / 2, (straight[5 + k] + mirrored[5 + m]) / 2], view),
      );
      return { points: moved(points, ROUNDED_OFF), background: (prob[2 * i] + prob[2 * (count + i)]) / 2 };
    });
  }

  destroy(): void {
    this.gpu.destroyBuffer(this.#maps.buffer);
  }
}

const moved = (points: Points, by: number): Points => points.map(([x, y]) => [x + by, y + by]);

const looksAt = ({ centre, side, angle }: TurnedWindow): TurnedWindow[] =>
  LOOKS.map(([size, turn]) => ({ centre, side: side * size, angle: angle + turn }));

function meanOf(looks: readonly Seen[]): Seen {
  const mean = (value: (look: Seen) => number) =>
    looks.reduce((sum, look) => sum + value(look), 0) / looks.length;
  const points = looks[0].points.map(
    (_, k) => [mean((look) => look.points[k][0]), mean((look) => look.points[k][1])] as const,
  );
  return { points, background: mean((look) => look.background) };
}

/** From the middles of O-Net's pixels to those of the picture's, and how many samples a pixel takes. */
function mapOf({ centre, side, angle }: TurnedWindow): number[] {
  const [cos, sin] = [(Math.cos(angle) * side) / ONET_SIZE, (Math.sin(angle) * side) / ONET_SIZE];
  const middle = (ONET_SIZE - 1) / 2;
  return [
    ...[cos, -sin, centre[0] - 0.5 - (cos - sin) * middle],
    ...[sin, cos, centre[1] - 0.5 - (sin + cos) * middle],
    Math.min(MOST_SAMPLES, Math.max(1, Math.ceil(side / ONET_SIZE))),
  ];
}
