// Batches from packs, augmented in worker threads ahead of the step that needs them.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { WfrError } from '../../gpu/errors.js';
import { readNpy } from '../../weights/formats/numpy.js';
import { prefetch, WorkerPool } from '../prefetch.node.js';
import type { Augmentation, Normalisation } from './augment.js';
import type { Pack, PackEncoding } from './pack.node.js';
import { type Batch, type DataOrigin, type DataSource, Order, UNLABELLED } from './source.js';
import { prepareTeacher, TEACHER_MEAN } from './teacher.js';

/** What a worker thread knows from the start. */
export interface WorkerSetup {
  packs: { file: string; side: number; encoding: PackEncoding }[];
  size: number;
  seed: number;
  augmentation: Augmentation;
  normalisation: Normalisation;
}

/** One batch to prepare. Numbers of pictures name their random streams. */
export interface WorkerJob {
  epoch: number;
  pictures: Uint32Array;
  /** Pack, start and length of each picture. */
  places: Float64Array;
}

export interface PackedSourceOptions {
  batch: number;
  /** Side of the pictures that the net sees. */
  size: number;
  seed: number;
  augmentation: Augmentation;
  normalisation: Normalisation;
  /** Share of the teacher's mean that is subtracted. Default 0.8. */
  teacherMean?: number;
  /** Threads. Default 1. */
  threads?: number;
  /** Batches prepared ahead. By default two more than threads, for each has one in hand, of at most 1 GiB. */
  ahead?: number;
}

/** Bytes of batches prepared ahead. */
const MOST_AHEAD = 2 ** 30;

/** A pack with its teacher's embeddings: N × T of the listing's rows. */
export interface PackedSet {
  pack: Pack;
  teacher?: { shape: readonly number[]; data: Float32Array; file: string };
}

/**
 * A row of nothing but NaN stands for a picture without an embedding.
 * @throws WfrError when the file is no matrix with a row for every picture listed, or a number in it is not finite.
 */
export async function readTeacher(file: string, pack: Pack): Promise<PackedSet['teacher']> {
  const content = await matrixOf(file);
  if (content.shape[0] !== pack.index.listed)
    throw new WfrError(
      `${file} has ${content.shape[0]} rows, but its data set lists ${pack.index.listed} pictures: one row a picture is needed, in the order of index.csv.`,
    );
  const [, width] = content.shape;
  for (const row of pack.index.rows) {
    const values = content.data.subarray(row * width, (row + 1) * width);
    if (values.every(Number.isFinite) || values.every(Number.isNaN)) continue;
    throw new WfrError(
      `${file}, row ${row + 1}: ${values.find((v) => !Number.isFinite(v))} is among its numbers. Make the file anew, with a row of NaN where there is no embedding.`,
    );
  }
  return { ...content, file };
}

async function matrixOf(file: string): Promise<{ shape: readonly number[]; data: Float32Array }> {
  const expected = `${file}: a matrix of N × T embeddings (.npy) was expected`;
  let content: ReturnType<typeof readNpy>;
  try {
    content = readNpy(await readFile(file));
  } catch (error) {
    throw new WfrError(`${expected}: ${(error as Error).message}`);
  }
  if (!('shape' in content) || content.shape.length !== 2) throw new WfrError(`${expected}.`);
  if (content.shape[1] < 1)
    throw new WfrError(`${expected}, its rows have no numbers: it is ${content.shape[0]} × 0.`);
  return content;
}

export class PackedSource implements DataSource {
  readonly count: number;
  readonly identities: readonly string[];
  readonly labels: Uint32Array;
  readonly teacherDimension: number;
  readonly origin: DataOrigin;
  readonly #teacher: Float32Array | undefined;
  readonly #places: Float64Array;
  readonly #names: string[];
  readonly #order: Order;
  readonly #pool: WorkerPool<WorkerJob, Float32Array>;

  constructor(
    sets: readonly PackedSet[],
    private readonly options: PackedSourceOptions,
  ) {
    const indices = sets.map(({ pack }) => pack.index);
    this.count = indices.reduce((sum, { names }) => sum + names.length, 0);
    this.#order = new Order(this.count, options);
    this.#names = sets.flatMap(({ pack }) => pack.index.names.map((name) => `${pack.file}: ${name}`));
    // An identity named alike in two sets is the same person.
    const all = indices.flatMap(({ identities }) => identities);
    this.identities = [...new Set(all.filter((i) => i !== null))].sort();
    const number = new Map(this.identities.map((name, i) => [name, i]));
    this.labels = Uint32Array.from(all, (name) => (name === null ? UNLABELLED : number.get(name)!));
    this.#places = Float64Array.from(
      indices.flatMap(({ names, offsets }, p) =>
        names.flatMap((_, i) => [p, offsets[i], offsets[i + 1] - offsets[i]]),
      ),
    );
    const { teacherMean = TEACHER_MEAN } = options;
    const teachers = sets.flatMap(({ teacher }) => teacher ?? []);
    this.teacherDimension = teachers[0]?.shape[1] ?? 0;
    const odd = teachers.find(({ shape }) => shape[1] !== this.teacherDimension);
    if (odd)
      throw new WfrError(
        `${odd.file} has rows of ${odd.shape[1]} numbers, ${teachers[0].file} of ${this.teacherDimension}: one teacher is needed for all.`,
      );
    if (teachers.length > 0)
      this.#teacher = prepareTeacher(
        sets.map(({ pack, teacher }) => ({ rows: pack.index.rows, data: teacher?.data })),
        this.teacherDimension,
        teacherMean,
        teachers.map(({ file }) => file).join(', '),
      );
    this.origin = {
      pictures: this.count,
      identities: this.identities.length,
      augmentation: options.augmentation,
      data: dataHash(sets),
      ...(teachers.length > 0 && { teacher: teacherHash(sets), teacherMean }),
    };
    const setup: WorkerSetup = {
      packs: sets.map(({ pack: { file, index } }) => ({ file, side: index.side, encoding: index.encoding })),
      size: options.size,
      seed: options.seed,
      augmentation: options.augmentation,
      normalisation: options.normalisation,
    };
    this.#pool = new WorkerPool(
      new URL('./packed_worker.node.js', import.meta.url),
      options.threads ?? 1,
      setup,
    );
  }

  get stepsPerEpoch(): number {
    return this.#order.stepsPerEpoch;
  }

  nameOf(picture: number): string {
    return this.#names[picture];
  }

  get #ahead(): number {
    const { ahead, threads = 1, batch, size } = this.options;
    const fitting = Math.floor(MOST_AHEAD / (batch * size * size * 4 * 4));
    return ahead ?? Math.max(1, Math.min(threads + 2, fitting));
  }

  async *batches(fromStep: number): AsyncIterableIterator<Batch> {
    yield* prefetch(steps(fromStep), this.#ahead, (step) => this.#prepare(step));
  }

  async #prepare(step: number): Promise<Batch> {
    const { epoch, pictures } = this.#order.at(step);
    const places = new Float64Array(pictures.length * 3);
    pictures.forEach((p, i) => {
      places.set(this.#places.subarray(p * 3, p * 3 + 3), i * 3);
    });
    const x = await this.#pool.run({ epoch, pictures, places });
    const labels = Uint32Array.from(pictures, (p) => this.labels[p]);
    const d = this.teacherDimension;
    let teacher: Float32Array | undefined;
    if (this.#teacher) {
      teacher = new Float32Array(pictures.length * d);
      for (const [i, p] of pictures.entries()) teacher.set(this.#teacher.subarray(p * d, (p + 1) * d), i * d);
    }
    return { x, labels, teacher, pictures };
  }

  close(): Promise<void> {
    return this.#pool.close();
  }
}

function dataHash(sets: readonly PackedSet[]): string {
  const hash = createHash('sha256');
  for (const { pack } of sets) {
    const { names, identities, digest, key } = pack.index;
    hash.update(JSON.stringify([names, identities, digest ?? key]));
  }
  return hash.digest('hex');
}

function teacherHash(sets: readonly PackedSet[]): string {
  const hash = createHash('sha256');
  for (const { teacher } of sets) {
    hash.update(JSON.stringify(teacher?.shape ?? null));
    if (teacher)
      hash.update(new Uint8Array(teacher.data.buffer, teacher.data.byteOffset, teacher.data.byteLength));
  }
  return hash.digest('hex');
}

function* steps(from: number): Generator<number> {
  for (let step = from; ; step++) yield step;
}
