import { WfrError } from '../../gpu/errors.js';
import { Random } from '../random.js';
import type { Augmentation } from './augment.js';

/** The label of a picture whose identity is not known: losses over identities leave it out. */
export const UNLABELLED = 0xffffffff;

/** What a training step takes. */
export interface Batch {
  /** [N, size, size, 4], values as the net wants them; the fourth is zero. */
  x: Float32Array;
  /** [N] number of the identity, or UNLABELLED. */
  labels: Uint32Array;
  /** [N, T] teacher's embeddings, centred and of length one; a row of zeros where there is none. */
  teacher?: Float32Array;
  /** Pictures of the batch, by number, for messages. */
  pictures: Uint32Array;
}

/** What pictures a run learns from, as plain data: kept in checkpoints, so that a resumed run can be held against it. */
export interface DataOrigin {
  pictures: number;
  identities: number;
  augmentation: Augmentation;
  /** Changes with the pictures, their names, identities and order. */
  data: string;
  /** Changes with the teacher's embeddings; absent without a teacher. */
  teacher?: string;
  /** Share of the teacher's mean that is subtracted; all of it in checkpoints that do not say. */
  teacherMean?: number;
}

/** Where pictures come from: files in Node, fetched or drawn pictures in a page. */
export interface DataSource {
  /** Pictures. */
  readonly count: number;
  /** Identities, by their labels; empty without any. */
  readonly identities: readonly string[];
  /** Length of the teacher's embeddings; 0 without a teacher. */
  readonly teacherDimension: number;
  readonly stepsPerEpoch: number;
  /** What a resumed run must find as it was. Without it that is not checked. */
  readonly origin?: DataOrigin;
  /** What a message calls a picture. */
  nameOf(picture: number): string;
  /** The batches from a step on, without end. The same step always gives the same batch. */
  batches(fromStep: number): AsyncIterableIterator<Batch>;
  close(): Promise<void>;
}

export interface OrderOptions {
  seed: number;
  batch: number;
}

/**
 * Which pictures a step sees: each epoch in an order of its own, what does not fill a batch is left out of that
 * epoch.
 */
export class Order {
  readonly stepsPerEpoch: number;
  #epoch = -1;
  #permutation: Uint32Array = new Uint32Array(0);

  /** @throws WfrError when there are fewer pictures than a batch. */
  constructor(
    readonly count: number,
    readonly options: OrderOptions,
  ) {
    this.stepsPerEpoch = Math.floor(count / options.batch);
    if (this.stepsPerEpoch < 1)
      throw new WfrError(`A batch of ${options.batch} needs as many pictures; there are ${count}.`);
  }

  at(step: number): { epoch: number; pictures: Uint32Array } {
    const { batch, seed } = this.options;
    const epoch = Math.floor(step / this.stepsPerEpoch);
    if (epoch !== this.#epoch) {
      this.#permutation = Random.of(seed, 'order', epoch).permutation(this.count);
      this.#epoch = epoch;
    }
    const first = (step % this.stepsPerEpoch) * batch;
    return { epoch, pictures: this.#permutation.slice(first, first + batch) };
  }
}

/** The stream that decides how a picture is changed in an epoch. */
export const augmentStream = (seed: number, epoch: number, picture: number): Random =>
  Random.of(seed, 'augment', epoch, picture);
