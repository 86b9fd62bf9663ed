/** Training in the tab: dropped pictures as a data source, the library's trainer, and a map of the embeddings. */
import {
  type Augmentation,
  alignFace,
  Embedder,
  type Gpu,
  MemorySource,
  type MobileFaceNetConfig,
  type Mtcnn,
  mainFace,
  type Picture,
  type Recipe,
  Trainer,
  type Weights,
  type WeightsMetadata,
  WfrError,
  writeSafetensors,
} from '../../src/index.js';
import { metadataToStrings } from '../../src/weights/metadata.js';
import type { EngineEvent } from './engine.js';

export interface TrainingRequest {
  pictures: { person: string; file: File }[];
  /** The pictures are aligned faces already; else the largest face of each is cut out. */
  aligned: boolean;
  /** `small`: four blocks, 64 numbers; `mobilefacenet`: the paper's; `loaded`: goes on from the loaded recogniser. */
  net: 'small' | 'mobilefacenet' | 'loaded';
  /** Side of the pictures that the net sees. */
  size: number;
  batch: number;
  steps: number;
  rate: number;
  mirrorOnly: boolean;
}

/** Pictures are kept at this side, and reduced to the net's by the augmentation's one resampling. */
const SIDE = 112;
const SEED = 1;
const MAP_EVERY = 10;
const MAP_PICTURES = 120;

const SMALL: Partial<MobileFaceNetConfig> = {
  stem: 32,
  stemGroups: 32,
  blocks: [
    { expand: 64, outputs: 32, stride: 2 },
    { expand: 64, outputs: 32, stride: 1 },
    { expand: 128, outputs: 64, stride: 2 },
    { expand: 128, outputs: 64, stride: 1 },
  ],
  head: 128,
  embedding: 64,
};
const PREPROCESSING = { mean: 127.5, scale: 1 / 127.5, order: 'rgb' as const };

interface Sample {
  identity: string;
  name: string;
  picture: Picture;
}

export class TrainingRun {
  readonly #stop = new AbortController();

  constructor(
    private readonly gpu: Gpu,
    private readonly detector: Mtcnn | undefined,
    private readonly loaded: Weights | undefined,
    private readonly emit: (event: EngineEvent) => void,
  ) {}

  stop(): void {
    this.#stop.abort();
  }

  async run(request: TrainingRequest): Promise<Uint8Array> {
    const { samples, people } = await this.#read(request);
    const metadata = this.#metadata(request, samples.length, people.length);
    const augmentation: Augmentation = request.mirrorOnly
      ? { mirror: 0.5 }
      : { mirror: 0.5, affine: 0.8, crop: 0.3, colour: 0.8, erase: 0.2 };
    const batch = Math.min(request.batch, samples.length);
    const pictures = samples.map(({ name, identity, picture }) => ({ name, identity, rgb: rgbOf(picture) }));
    const source = new MemorySource(pictures, {
      side: SIDE,
      size: request.size,
      batch,
      seed: SEED,
      augmentation,
      normalisation: metadata.preprocessing,
    });
    const recipe: Recipe = {
      net: metadata.net,
      description: metadata,
      size: request.size,
      batch,
      epochs: request.steps / source.stepsPerEpoch,
      seed: SEED,
      objective: {
        identity: { margin: { m1: 1, m2: 0.3, m3: 0, scale: 32, exact: false, gamma: 0 }, weight: 1 },
      },
      optimizer: { kind: 'sgd', momentum: 0.9, weightDecay: 5e-4 },
      schedule: { kind: 'cosine', rate: request.rate },
      clip: 5,
    };
    const init = request.net === 'loaded' ? this.loaded!.state : undefined;
    const trainer = await Trainer.create(this.gpu, recipe, source, { init });
    try {
      const weights = async (): Promise<Weights> => ({ state: await trainer.weights(), metadata });
      await trainer.run({
        signal: this.#stop.signal,
        // The map of a step is of its weights.
        inFlight: 1,
        onStep: async ({ step, loss, accuracy, seconds }) => {
          this.emit({ kind: 'training', step, steps: trainer.steps, loss, accuracy, seconds });
          if (step % MAP_EVERY === 0 || step === trainer.steps)
            await this.#map(step, await weights(), samples);
        },
      });
      const { state } = await weights();
      return writeSafetensors(state, metadataToStrings(metadata));
    } finally {
      trainer.destroy();
    }
  }

  async #read(request: TrainingRequest): Promise<{ samples: Sample[]; people: string[] }> {
    if (!request.aligned && !this.detector)
      throw new WfrError(
        'Without a detector the pictures must be aligned faces: tick that they are, or load one.',
      );
    const people = [...new Set(request.pictures.map((p) => p.person))].sort();
    if (people.length < 2)
      throw new WfrError('Learning who is who needs at least two people: a folder of pictures for each.');
    const samples: Sample[] = [];
    let skipped = 0;
    for (const [done, { person, file }] of request.pictures.entries()) {
      this.emit({ kind: 'reading', done, total: request.pictures.length, skipped });
      const picture = await this.#face(file, request.aligned).catch(() => undefined);
      if (picture) samples.push({ identity: person, name: file.name, picture });
      else skipped++;
    }
    this.emit({ kind: 'reading', done: request.pictures.length, total: request.pictures.length, skipped });
    if (samples.length < 2) throw new WfrError('No two of the pictures show a face that could be used.');
    return { samples, people };
  }

  /** SIDE × SIDE pixels of a face. */
  async #face(file: File, aligned: boolean): Promise<Picture | undefined> {
    const bitmap = await createImageBitmap(file);
    const [width, height] = aligned ? [SIDE, SIDE] : [bitmap.width, bitmap.height];
    const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const whole = context.getImageData(0, 0, width, height);
    if (aligned) return whole;
    const face = mainFace(await this.detector!.detect(whole), width, height);
    return face && alignFace(whole, face.landmarks, SIDE, SIDE);
  }

  #metadata(request: TrainingRequest, pictures: number, people: number): WeightsMetadata {
    const about = {
      title: 'Trained in a browser tab',
      data: `${pictures} pictures of ${people} people, chosen by the user`,
    };
    const input = { height: request.size, width: request.size };
    if (request.net === 'loaded') {
      if (!this.loaded) throw new WfrError('There is no recogniser to go on from: load one first.');
      const { threshold: _, ...rest } = this.loaded.metadata;
      return { ...rest, ...about, input, preprocessing: rest.preprocessing ?? PREPROCESSING };
    }
    const config = request.net === 'small' ? (SMALL as Record<string, unknown>) : {};
    return { net: 'mobilefacenet', config, input, preprocessing: PREPROCESSING, ...about };
  }

  /** Where the pictures lie in the plane of their two main directions. */
  async #map(step: number, weights: Weights, samples: readonly Sample[]): Promise<void> {
    const embedder = Embedder.create(this.gpu, weights, { flip: false });
    try {
      const shown = samples.filter((_, i) => i % Math.ceil(samples.length / MAP_PICTURES) === 0);
      const { height, width } = embedder.inputSize;
      const embeddings = await embedder.embedAligned(shown.map((s) => resized(s.picture, width, height)));
      const points = plane(embeddings).map(([x, y], i) => ({ x, y, label: shown[i].identity }));
      this.emit({ kind: 'map', step, points });
    } finally {
      await embedder.destroy();
    }
  }
}

const rgbOf = ({ data }: Picture): Uint8Array => Uint8Array.from(data.filter((_, i) => i % 4 < 3));

function resized({ width, height, data }: Picture, w: number, h: number): Picture {
  if (width === w && height === h) return { width, height, data };
  const from = new OffscreenCanvas(width, height);
  from.getContext('2d')!.putImageData(new ImageData(new Uint8ClampedArray(data), width, height), 0, 0);
  const context = new OffscreenCanvas(w, h).getContext('2d', { willReadFrequently: true })!;
  context.drawImage(from, 0, 0, w, h);
  return context.getImageData(0, 0, w, h);
}

/** The first two principal components, by power iteration; scaled into −1 … 1. */
function plane(vectors: readonly Float32Array[]): [number, number][] {
  const d = vectors[0].length;
  const mean = new Float64Array(d);
  for (const v of vectors) for (let i = 0; i < d; i++) mean[i] += v[i] / vectors.length;
  const rest = vectors.map((v) => Float64Array.from(v, (value, i) => value - mean[i]));
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const axes = [0, 1].map((k) => {
    let axis = Float64Array.from({ length: d }, (_, i) => Math.sin(1 + i * (k + 1)));
    for (let round = 0; round < 30; round++) {
      const next = new Float64Array(d);
      for (const v of rest) {
        const along = dot(v, axis);
        for (let i = 0; i < d; i++) next[i] += along * v[i];
      }
      const norm = Math.sqrt(dot(next, next)) || 1;
      axis = next.map((v) => v / norm);
    }
    // The second axis is looked for in what the first leaves.
    const coordinates = rest.map((v) => dot(v, axis));
    for (const [n, v] of rest.entries()) for (let i = 0; i < d; i++) v[i] -= coordinates[n] * axis[i];
    return coordinates;
  });
  const largest = Math.max(1e-9, ...axes.flat().map(Math.abs));
  return axes[0].map((x, n) => [x / largest, axes[1][n] / largest]);
}
