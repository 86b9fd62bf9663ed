// Verification accuracy while training: pairs of pictures that are aligned once and kept in memory.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Points } from '../face/align.js';
import { alignFace } from '../face/crops.js';
import { Embedder } from '../face/embedder.js';
import { FaceError } from '../face/errors.js';
import type { EmbeddedPicture } from '../face/verification/embed.node.js';
import { parseLandmarks } from '../face/verification/lists.js';
import { evaluate } from '../face/verification/protocol.js';
import { requireTwoFolds, scorePairs, type TestSet, testSetFromList } from '../face/verification/run.node.js';
import type { Gpu } from '../gpu/gpu.js';
import { decodePicture } from '../media/decode.node.js';
import type { Picture } from '../media/picture.js';
import type { Weights } from '../weights/convert.js';
import { isPictureProblem } from './data/pack.node.js';

export interface ValidationListOptions {
  /** List of pairs, LFW's or plain. */
  pairs: string;
  /** Folder of their pictures. */
  data: string;
  /** Five points a picture (CSV); without them `align` finds the face. */
  landmarks?: string;
  /** Use about so many pairs. */
  limit?: number;
}

/** Pairs that can be measured by, and the points of their pictures. */
export interface ValidationList {
  set: TestSet;
  points: ReadonlyMap<string, Points>;
}

export interface ValidationOptions extends ValidationListOptions {
  /** Side of the aligned pictures. */
  side: number;
  align: (picture: Picture) => Promise<Picture | undefined>;
  /** @param problem why the picture cannot be used, where it cannot */
  onPicture?: (id: string, problem?: string) => void;
  /** Pictures to expect, before the first. */
  onStart?: (count: number) => void;
  signal?: AbortSignal;
}

export interface ValidationResult {
  pairs: number;
  /** Mean over the folds, threshold from the other folds. */
  accuracy: number;
  std: number;
  auc: number;
  /** True accepts at one false accept in a hundred, all pairs at one threshold; NaN where the pairs cannot show it. */
  tar: number;
  /** Changes with the pairs: accuracy on others is not to be compared. Logs of earlier versions lack it. */
  list?: string;
}

export class Validation {
  private constructor(
    readonly set: TestSet,
    private readonly crops: ReadonlyMap<string, Picture | undefined>,
  ) {}

  /**
   * Reads the list and the points, and looks whether the pictures are there.
   * @throws WfrError when either is malformed, a picture is missing, or the pairs cannot be measured by: both kinds and two
   *   folds are needed.
   */
  static async list({ pairs, data, landmarks, limit }: ValidationListOptions): Promise<ValidationList> {
    const advice = 'Put the picture there, or take its pairs out of the list.';
    const set = await testSetFromList(pairs, data, { limit, advice });
    requireTwoFolds(set);
    const [first] = set.pairs;
    if (set.pairs.every(({ same }) => same === first.same))
      throw new FaceError(
        `${pairs}: the ${set.pairs.length} pairs to be measured on are all of ${first.same ? 'one person' : 'different people'}. Pairs of both kinds are needed: add some to the list${limit === undefined ? '' : ', or use more of it (--val-limit)'}.`,
      );
    const points = landmarks
      ? parseLandmarks(await readFile(landmarks, 'utf8'), { name: landmarks })
      : new Map<string, Points>();
    return { set, points };
  }

  /**
   * Reads and aligns the pictures. One that cannot be read, or shows no face, is kept as such: its pairs count as different.
   * @param list what `list` gave; read here without it.
   * @throws WfrError as `list` does; AbortError when the signal was given.
   */
  static async open(options: ValidationOptions, list?: ValidationList): Promise<Validation> {
    const { side } = options;
    const { set, points } = list ?? (await Validation.list(options));
    const crops = new Map<string, Picture | undefined>();
    options.onStart?.(set.pictures.length);
    const cropOf = async (id: string, picture: Picture): Promise<Picture | undefined> => {
      if (picture.width === side && picture.height === side) return picture;
      const given = points.get(id);
      return given ? alignFace(picture, given, side, side) : options.align(picture);
    };
    for (const { id, read } of set.pictures) {
      options.signal?.throwIfAborted();
      let problem: string | undefined;
      try {
        const crop = await cropOf(id, await decodePicture(await read()));
        crops.set(id, crop);
        if (!crop) problem = 'no face found';
      } catch (error) {
        if (!isPictureProblem(error)) throw error;
        crops.set(id, undefined);
        problem = `${error.message}; its pairs count as different`;
      }
      options.onPicture?.(id, problem);
    }
    return new Validation(set, crops);
  }

  /** Embeds every picture with the weights and scores the pairs; pictures without a face count as different. */
  async run(gpu: Gpu, weights: Weights, options: { flip?: boolean } = {}): Promise<ValidationResult> {
    const embedder = Embedder.create(gpu, weights, { flip: options.flip ?? false });
    try {
      const ids = [...this.crops].flatMap(([id, crop]) => (crop ? [[id, crop] as const] : []));
      const embeddings = await embedder.embedAligned(ids.map(([, crop]) => crop));
      const embedded = new Map<string, EmbeddedPicture>(
        [...this.crops.keys()].map((id) => [id, { treatment: 'none' }]),
      );
      for (const [i, [id]] of ids.entries())
        embedded.set(id, { treatment: 'aligned', embedding: embeddings[i] });
      const scored = scorePairs(this.set, embedded, 'different');
      const result = evaluate(scored, scored.folds);
      const tar = result.tarAtFar.find((t) => t.wished === 0.01);
      return {
        pairs: result.pairs,
        accuracy: result.accuracy.mean,
        std: result.accuracy.std,
        auc: result.auc,
        tar: tar?.pooled?.tar ?? Number.NaN,
        list: hashOf(this.set),
      };
    } finally {
      await embedder.destroy();
    }
  }
}

const hashOf = ({ pairs }: TestSet): string =>
  createHash('sha256')
    .update(JSON.stringify(pairs.map(({ a, b, same }) => [a, b, same])))
    .digest('hex')
    .slice(0, 16);
