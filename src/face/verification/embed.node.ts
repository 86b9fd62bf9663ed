// From a list of pictures to one embedding each, by the same detection and alignment as everywhere else.
import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import { decodePicture } from '../../media/decode.node.js';
import type { Picture } from '../../media/picture.js';
import type { Points } from '../align.js';
import type { Mtcnn } from '../detector.js';
import type { Embedder } from '../embedder.js';
import { GpuPicture } from '../gpu_picture.js';
import { mainFace } from '../recognizer.js';
import {
  type Detection,
  type DetectionStore,
  type EmbeddingStore,
  embeddingKey,
  pictureHash,
} from './store.node.js';

export interface SourcePicture {
  /** How lists and messages call it; unique. */
  id: string;
  read(): Promise<Uint8Array>;
}

/** How a picture came to its embedding. */
export type Treatment =
  /** Aligned by the points that the detector found. */
  | 'detected'
  /** Aligned by the points of a file. */
  | 'given'
  /** 112×112 or 112×96: aligned already. */
  | 'aligned'
  /** No face was found; aligned as LFW's pictures are on average. */
  | 'centre'
  /** No face was found, or the picture cannot be read: no embedding. */
  | 'none';

/** What to do with a picture in which no face is found. */
export type NoFaceRule = 'centre' | 'different' | 'exclude';

export interface EmbeddedPicture {
  treatment: Treatment;
  embedding?: Float32Array;
  /** Points the face was aligned by, in pixels of the picture. */
  landmarks?: Points;
  /** Why the picture could not be used at all. */
  problem?: string;
}

export interface Timing {
  /** Seconds in all, over `count` pictures that were not in the cache. */
  decode: number;
  detect: number;
  embed: number;
  count: { decode: number; detect: number; embed: number };
}

export interface EmbedPicturesOptions {
  /** Device and nets are opened only when some picture is not in the cache. */
  gpu: () => Promise<Gpu>;
  detector: () => Promise<Mtcnn>;
  embedder: () => Promise<Embedder>;
  detections: DetectionStore;
  embeddings: EmbeddingStore;
  /** Points by id, instead of detection. A picture without an entry is detected as usual. */
  landmarks?: ReadonlyMap<string, Points>;
  noFace: NoFaceRule;
  /** Smallest face in pixels. */
  minFace: number;
  /** Report unreadable pictures and go on instead of stopping at the first. */
  skipMissing?: boolean;
  /** Pictures read and decoded ahead of the GPU. */
  ahead?: number;
  onPicture?: (id: string, picture: EmbeddedPicture) => void;
  signal?: AbortSignal;
}

/**
 * Mean position of LFW's five points as shares of width and height (mean of 13,233 funneled pictures): where a
 * face is when the detector does not see it.
 */
export const LFW_CENTRE: Points = [
  [0.4202, 0.4536],
  [0.588, 0.4499],
  [0.5052, 0.5503],
  [0.4335, 0.6375],
  [0.5815, 0.6345],
];

const SAVE_EVERY_MS = 30_000;

/**
 * Embeds every picture once. What is in the two stores is neither detected nor embedded again; they are saved
 * now and then, at the end, and when the run is interrupted.
 * @throws WfrError naming the picture that cannot be read, unless told to go on.
 */
export async function embedPictures(
  pictures: readonly SourcePicture[],
  options: EmbedPicturesOptions,
): Promise<{ embedded: Map<string, EmbeddedPicture>; timing: Timing }> {
  const embedded = new Map<string, EmbeddedPicture>();
  const timing: Timing = { decode: 0, detect: 0, embed: 0, count: { decode: 0, detect: 0, embed: 0 } };
  const ahead = new Map<number, Promise<Loaded | Error>>();
  const load = (i: number) => {
    if (i < pictures.length)
      ahead.set(
        i,
        loadPicture(pictures[i], options, timing).catch((e: Error) => e),
      );
  };
  for (let i = 0; i < (options.ahead ?? 4); i++) load(i);
  let saved = Date.now();
  try {
    for (const [i, { id }] of pictures.entries()) {
      options.signal?.throwIfAborted();
      const loaded = (await ahead.get(i))!;
      ahead.delete(i);
      load(i + (options.ahead ?? 4));
      const result =
        loaded instanceof Error
          ? unreadable(id, loaded, options)
          : await embedOne(id, loaded, options, timing);
      embedded.set(id, result);
      options.onPicture?.(id, result);
      if (Date.now() - saved > SAVE_EVERY_MS) {
        await save(options);
        saved = Date.now();
      }
    }
  } finally {
    await Promise.all(ahead.values());
    await save(options);
  }
  return { embedded, timing };
}

async function save({ detections, embeddings }: EmbedPicturesOptions): Promise<void> {
  await detections.save();
  await embeddings.save();
}

function unreadable(id: string, error: Error, { skipMissing }: EmbedPicturesOptions): EmbeddedPicture {
  const system = typeof (error as NodeJS.ErrnoException).syscall === 'string';
  if (!(error instanceof WfrError) && !system) throw error;
  const problem = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file' : error.message;
  if (!skipMissing) throw new WfrError(`${id}: ${problem}. To leave such pictures out, add --skip-missing.`);
  return { treatment: 'none', problem };
}

/** A picture with what the caches know of it; decoded only where something is missing. */
interface Loaded {
  sha: string;
  picture?: Picture;
  detection?: Detection;
  /** Reads the picture again, where the guess that it is not needed was wrong. */
  decode: () => Promise<Picture>;
}

async function loadPicture(
  source: SourcePicture,
  options: EmbedPicturesOptions,
  timing: Timing,
): Promise<Loaded> {
  const bytes = await source.read();
  const sha = pictureHash(bytes);
  const detection = options.detections.get(sha);
  const given = options.landmarks?.get(source.id);
  const points = given ?? (detection && pointsOf(detection, options.noFace));
  const known =
    (points && options.embeddings.get(embeddingKey(sha, points))) ||
    options.embeddings.get(embeddingKey(sha)) ||
    (detection && !points && !given);
  const decode = async () => {
    const start = performance.now();
    const picture = await decodePicture(bytes);
    timing.decode += (performance.now() - start) / 1000;
    timing.count.decode++;
    return picture;
  };
  return { sha, detection, picture: known ? undefined : await decode(), decode };
}

/** Points of the main face, or of LFW's mean face, or none. */
function pointsOf({ faces, width, height }: Detection, noFace: NoFaceRule): Points | undefined {
  const main = mainFace(faces, width, height);
  if (main) return main.landmarks;
  return noFace === 'centre' ? centrePoints(width, height) : undefined;
}

function centrePoints(width: number, height: number): Points {
  const side = Math.min(width, height);
  return LFW_CENTRE.map(([x, y]) => [(width - side) / 2 + x * side, (height - side) / 2 + y * side] as const);
}

const isAligned = ({ width, height }: Picture): boolean => height === 112 && (width === 112 || width === 96);

async function embedOne(
  id: string,
  loaded: Loaded,
  options: EmbedPicturesOptions,
  timing: Timing,
): Promise<EmbeddedPicture> {
  const { sha } = loaded;
  const { embeddings, detections } = options;
  const alignedKey = embeddingKey(sha);
  const aligned = embeddings.get(alignedKey);
  if (aligned) return { treatment: 'aligned', embedding: aligned };
  const picture = loaded.picture;
  if (picture && isAligned(picture)) {
    const [embedding] = await timed(timing, 'embed', async () =>
      (await options.embedder()).embedAligned([picture]),
    );
    embeddings.set(alignedKey, embedding);
    return { treatment: 'aligned', embedding };
  }
  const uploads = new Uploads(loaded, options);
  try {
    let landmarks = options.landmarks?.get(id);
    let treatment: Treatment = 'given';
    if (!landmarks) {
      let detection = loaded.detection;
      if (!detection) {
        const { width, height } = await uploads.decoded();
        const detector = await options.detector();
        const gpuPicture = await uploads.get();
        const faces = await timed(timing, 'detect', () =>
          detector.detect(gpuPicture, { minFace: options.minFace }),
        );
        detection = { width, height, faces };
        detections.set(sha, detection);
      }
      landmarks = pointsOf(detection, options.noFace);
      treatment = detection.faces.length === 0 ? 'centre' : 'detected';
    }
    if (!landmarks) return { treatment: 'none' };
    const key = embeddingKey(sha, landmarks);
    let embedding = embeddings.get(key);
    if (!embedding) {
      const gpuPicture = await uploads.get();
      const points = landmarks;
      [embedding] = await timed(timing, 'embed', async () =>
        (await options.embedder()).embed(gpuPicture, [points]),
      );
      embeddings.set(key, embedding);
    }
    return { treatment, embedding, landmarks };
  } finally {
    uploads.destroy();
  }
}

/** Uploads a picture at most once, for detection and alignment together, and only where one of them runs. */
class Uploads {
  #picture: GpuPicture | undefined;
  constructor(
    private readonly loaded: Loaded,
    private readonly options: EmbedPicturesOptions,
  ) {}

  async decoded(): Promise<Picture> {
    this.loaded.picture ??= await this.loaded.decode();
    return this.loaded.picture;
  }

  async get(): Promise<GpuPicture> {
    this.#picture ??= GpuPicture.upload(await this.options.gpu(), await this.decoded());
    return this.#picture;
  }

  destroy(): void {
    this.#picture?.destroy();
  }
}

async function timed<T>(timing: Timing, stage: 'detect' | 'embed', work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  timing[stage] += (performance.now() - start) / 1000;
  timing.count[stage]++;
  return result;
}
