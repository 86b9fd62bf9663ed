import { WfrError } from '../../gpu/errors.js';
import { pad } from '../../kernels/tensor.js';
import { type Augmentation, augment, type Normalisation } from './augment.js';
import { fingerprint } from './fingerprint.js';
import { augmentStream, type Batch, type DataOrigin, type DataSource, Order, UNLABELLED } from './source.js';
import { prepareTeacher, TEACHER_MEAN } from './teacher.js';

export interface MemoryPicture {
  name: string;
  /** RGB, side × side × 3. */
  rgb: Uint8Array;
  identity?: string;
}

export interface MemorySourceOptions {
  side: number;
  /** Side of the pictures that the net sees. */
  size: number;
  batch: number;
  seed: number;
  augmentation?: Augmentation;
  normalisation?: Normalisation;
  /** [N, dimension] embeddings of a teacher. */
  teacher?: { data: Float32Array; dimension: number };
  /** Share of the teacher's mean that is subtracted. Default 0.8. */
  teacherMean?: number;
}

/** Batches from pictures in memory: for pages, and for sets small enough. Gives what PackedSource gives for the same. */
export class MemorySource implements DataSource {
  readonly identities: readonly string[];
  readonly teacherDimension: number;
  readonly #labels: Uint32Array;
  readonly #teacher: Float32Array | undefined;
  readonly #order: Order;
  #origin: DataOrigin | undefined;

  /** @throws WfrError when a picture has another size, or there are fewer than a batch. */
  constructor(
    private readonly pictures: readonly MemoryPicture[],
    private readonly options: MemorySourceOptions,
  ) {
    const bytes = options.side * options.side * 3;
    const odd = pictures.find(({ rgb }) => rgb.length !== bytes);
    if (odd) throw new WfrError(`${odd.name} has ${odd.rgb.length} bytes, ${bytes} are needed.`);
    this.#order = new Order(pictures.length, options);
    this.identities = [...new Set(pictures.flatMap(({ identity }) => identity ?? []))].sort();
    const number = new Map(this.identities.map((name, i) => [name, i]));
    this.#labels = Uint32Array.from(pictures, (p) =>
      p.identity === undefined ? UNLABELLED : number.get(p.identity)!,
    );
    this.teacherDimension = options.teacher?.dimension ?? 0;
    if (options.teacher)
      this.#teacher = prepareTeacher(
        [{ rows: pictures.map((_, i) => i), data: options.teacher.data }],
        this.teacherDimension,
        options.teacherMean,
      );
  }

  get origin(): DataOrigin {
    this.#origin ??= this.#describe();
    return this.#origin;
  }

  #describe(): DataOrigin {
    const { pictures, options } = this;
    const { teacher, teacherMean = TEACHER_MEAN, augmentation = {} } = options;
    const parts = pictures.flatMap(({ name, identity = null, rgb }) => [
      JSON.stringify([name, identity]),
      rgb,
    ]);
    return {
      pictures: pictures.length,
      identities: this.identities.length,
      augmentation,
      data: fingerprint(parts),
      ...(teacher && { teacher: fingerprint([teacher.data]), teacherMean }),
    };
  }

  get count(): number {
    return this.pictures.length;
  }

  get stepsPerEpoch(): number {
    return this.#order.stepsPerEpoch;
  }

  nameOf(picture: number): string {
    return this.pictures[picture].name;
  }

  async *batches(fromStep: number): AsyncIterableIterator<Batch> {
    for (let step = fromStep; ; step++) yield this.#prepare(step);
  }

  #prepare(step: number): Batch {
    const {
      side,
      size,
      seed,
      augmentation = {},
      normalisation = { mean: 127.5, scale: 1 / 127.5 },
    } = this.options;
    const { epoch, pictures } = this.#order.at(step);
    const each = size * size * 3;
    const x = new Float32Array(pictures.length * each);
    const d = this.teacherDimension;
    const teacher = this.#teacher && new Float32Array(pictures.length * d);
    for (const [i, p] of pictures.entries()) {
      const out = x.subarray(i * each, (i + 1) * each);
      const stream = augmentStream(seed, epoch, p);
      augment(this.pictures[p].rgb, side, out, size, augmentation, stream, normalisation);
      teacher?.set(this.#teacher!.subarray(p * d, (p + 1) * d), i * d);
    }
    const padded = pad(x, [pictures.length, size, size, 3]);
    return { x: padded, labels: Uint32Array.from(pictures, (p) => this.#labels[p]), teacher, pictures };
  }

  async close(): Promise<void> {}
}
