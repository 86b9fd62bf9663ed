/** What the pages compute with: one device, a detector and a recogniser. Runs in a worker or in the page itself. */

import { DEFAULT_THRESHOLD } from '../../src/face/match.js';
import {
  Embedder,
  type Face,
  fetchWeights,
  type Gpu,
  GpuPicture,
  Mtcnn,
  openGpu,
  type PagePicture,
  readWeights,
  type Weights,
  WfrError,
} from '../../src/index.js';
import { digest } from '../../src/weights/fetch.js';
import { type TrainingRequest, TrainingRun } from './training.js';

export type Role = 'detector' | 'recogniser';

export interface WeightsFile {
  url: string;
  sha256: string;
  bytes: number;
}

export interface LoadedNet {
  role: Role;
  title: string;
  licence?: string;
  /** Identifies embeddings: those of other weights mean nothing to these. */
  hash: string;
  threshold: number;
}

export interface FoundFace extends Face {
  embedding?: Float32Array;
}

/** Milliseconds; each stage ends when its results are back. */
export interface StageTimes {
  upload: number;
  detect: number;
  embed: number;
}

export interface Recognition {
  width: number;
  height: number;
  faces: FoundFace[];
  times: StageTimes;
  /** Bytes in GPU buffers: flat from frame to frame. */
  gpuBytes: number;
}

export type EngineEvent =
  | { kind: 'download'; role: Role; done: number; total: number | undefined }
  | { kind: 'training'; step: number; steps: number; loss: number; accuracy?: number; seconds: number }
  | { kind: 'reading'; done: number; total: number; skipped: number }
  | { kind: 'map'; step: number; points: { x: number; y: number; label: string }[] };

export class Engine {
  #gpu: Gpu | undefined;
  #detector: Mtcnn | undefined;
  #embedder: Embedder | undefined;
  #recogniser: Weights | undefined;
  #training: TrainingRun | undefined;

  constructor(private readonly emit: (event: EngineEvent) => void) {}

  /** Opens the device. @returns how the adapter calls itself. */
  async open(): Promise<{ adapter: string; software: boolean }> {
    this.#gpu ??= await openGpu();
    const { info } = this.#gpu.adapter;
    const adapter =
      info.description || [info.vendor, info.architecture].filter(Boolean).join(' ') || 'WebGPU';
    return { adapter, software: this.#gpu.traits.kind === 'cpu' };
  }

  async loadUrls(role: Role, files: readonly WeightsFile[]): Promise<LoadedNet> {
    const weights = await fetchWeights(files, {
      onProgress: (progress) => this.emit({ kind: 'download', role, ...progress }),
    });
    return this.#use(weights, files.map((f) => f.sha256).join());
  }

  /** The file of a net, or the three of an MTCNN, in any format that wfr reads. */
  async loadFiles(files: readonly Uint8Array[]): Promise<LoadedNet> {
    const hash = (await Promise.all(files.map(digest))).join();
    return this.#use(readWeights(files), hash);
  }

  async #use(weights: Weights, hash: string): Promise<LoadedNet> {
    const gpu = this.#device();
    const { net, title, licence, threshold } = weights.metadata;
    const loaded = {
      title: title ?? net,
      licence,
      hash,
      threshold: threshold?.similarity ?? DEFAULT_THRESHOLD,
    };
    if (net === 'mtcnn') {
      const before = this.#detector;
      this.#detector = Mtcnn.create(gpu, weights);
      await before?.destroy();
      return { role: 'detector', ...loaded };
    }
    this.#recogniser = weights;
    const before = this.#embedder;
    this.#embedder = Embedder.create(gpu, weights);
    await before?.destroy();
    return { role: 'recogniser', ...loaded };
  }

  /** Faces, best first, with their embeddings when a recogniser is loaded. The picture is closed afterwards. */
  async recognise(source: PagePicture, minFace: number): Promise<Recognition> {
    const gpu = this.#device();
    if (!this.#detector) throw new WfrError('No detector is loaded yet.');
    try {
      const t0 = performance.now();
      const picture = await GpuPicture.from(gpu, source);
      try {
        const t1 = performance.now();
        const faces: FoundFace[] = await this.#detector.detect(picture, { minFace });
        const t2 = performance.now();
        const embeddings = await this.#embedder?.embed(
          picture,
          faces.map((f) => f.landmarks),
        );
        const t3 = performance.now();
        return {
          width: Math.round(picture.width * picture.scale),
          height: Math.round(picture.height * picture.scale),
          faces: faces.map((face, i) => ({ ...face, embedding: embeddings?.[i] })),
          times: { upload: t1 - t0, detect: t2 - t1, embed: t3 - t2 },
          gpuBytes: gpu.stats.bytes,
        };
      } finally {
        picture.destroy();
      }
    } finally {
      if ('close' in source) source.close();
    }
  }

  /** Trains, from the beginning or from the loaded recogniser; `training` events tell how it goes. @returns the weights as safetensors. */
  async train(request: TrainingRequest): Promise<Uint8Array> {
    this.#training = new TrainingRun(this.#device(), this.#detector, this.#recogniser, this.emit);
    try {
      return await this.#training.run(request);
    } finally {
      this.#training = undefined;
    }
  }

  /** Ends a training after the step in hand; what was learnt is kept. */
  async stopTraining(): Promise<void> {
    this.#training?.stop();
  }

  #device(): Gpu {
    if (!this.#gpu) throw new WfrError('The device is not open yet.');
    return this.#gpu;
  }
}
