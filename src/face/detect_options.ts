import type { WeightsMetadata } from '../weights/metadata.js';
import { FaceError } from './errors.js';

/** Scores of P-, R- and O-Net, 0…1. */
export type Thresholds = readonly [number, number, number];

/** Those of the public weights. */
const THRESHOLDS: Thresholds = [0.6, 0.7, 0.7];

export interface DetectOptions {
  /** Faces smaller than this many pixels are not looked for. Default 20. */
  minFace?: number;
  /** Ratio of successive pyramid levels. Default 0.709. */
  factor?: number;
  /** Score that a candidate must reach in P-, R- and O-Net. Default: the weights' own (`Mtcnn.thresholds`). */
  thresholds?: Thresholds;
  /**
   * Look at each face again with O-Net, at three squares that are turned with it (second_look.ts) and their mirror images. Its
   * points are the mean of the six, its score the mean of the first look's and of theirs, which must reach O-Net's threshold
   * too. Default: what the weights' metadata say (`config.secondLook`), else false.
   */
  secondLook?: boolean;
  /**
   * Each face's box is the mean of all of O-Net's boxes that overlap it much, not the best-scored one (`votedBox`). Default:
   * what the weights' metadata say (`config.voteBoxes`), else false.
   */
  voteBoxes?: boolean;
}

/**
 * What a detector's weights ask for (`config` of their metadata), else what suits the public ones.
 * @throws FaceError when the thresholds are none.
 */
export function defaultsOf(metadata: WeightsMetadata | undefined) {
  const config = metadata?.config ?? {};
  const thresholds = (config.thresholds ?? THRESHOLDS) as Thresholds;
  if (!Array.isArray(thresholds) || thresholds.length !== 3)
    throw new FaceError(
      "The detector's weights have thresholds that are not three numbers: fetch or convert them anew.",
    );
  checkOptions({ thresholds });
  return { thresholds, secondLook: config.secondLook === true, voteBoxes: config.voteBoxes === true };
}

/** @throws FaceError naming the option that is out of its range. */
export function checkOptions({ minFace = 20, factor = 0.709, thresholds = THRESHOLDS }: DetectOptions): void {
  if (!(minFace >= 1 && Number.isFinite(minFace)))
    throw new FaceError(`minFace is ${minFace}: give the smallest face's size in pixels, at least 1.`);
  if (!(factor > 0 && factor < 1))
    throw new FaceError(
      `factor is ${factor}: each pyramid level must be smaller than the last, between 0 and 1.`,
    );
  if (thresholds.some((t) => !(typeof t === 'number' && t >= 0 && t <= 1)))
    throw new FaceError(`thresholds are ${thresholds.join(', ')}: each is a score from 0 to 1.`);
}
