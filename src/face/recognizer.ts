import type { Gpu } from '../gpu/gpu.js';
import type { Weights } from '../weights/convert.js';
import { type DetectOptions, type Face, Mtcnn } from './detector.js';
import { Embedder, type EmbedderOptions } from './embedder.js';
import type { Facebank } from './facebank.js';
import { GpuPicture, type PictureSource } from './gpu_picture.js';
import { DEFAULT_THRESHOLD, type Match, type MatchOptions } from './match.js';

export interface NamedFace extends Face, Match {
  embedding: Float32Array;
}

export interface RecognizeOptions extends DetectOptions, Partial<MatchOptions> {}

/** Detector and recogniser together: picture → faces with embeddings and, given a bank, names. */
export class FaceRecognizer {
  private constructor(
    private readonly gpu: Gpu,
    readonly detector: Mtcnn,
    readonly embedder: Embedder,
    /** From the weights' metadata where they are calibrated. */
    readonly threshold: number,
  ) {}

  static create(
    gpu: Gpu,
    weights: { detector: Weights; recogniser: Weights },
    options: EmbedderOptions = {},
  ): FaceRecognizer {
    const threshold = weights.recogniser.metadata.threshold?.similarity ?? DEFAULT_THRESHOLD;
    return new FaceRecognizer(
      gpu,
      Mtcnn.create(gpu, weights.detector),
      Embedder.create(gpu, weights.recogniser, options),
      threshold,
    );
  }

  /** @returns the faces, best score first, each with its embedding and match; without a bank all are unknown. */
  async recognize(
    input: PictureSource | GpuPicture,
    bank?: Facebank,
    options: RecognizeOptions = {},
  ): Promise<NamedFace[]> {
    const picture = input instanceof GpuPicture ? input : await GpuPicture.from(this.gpu, input);
    try {
      const faces = await this.detector.detect(picture, options);
      const embeddings = await this.embedder.embed(
        picture,
        faces.map((f) => f.landmarks),
      );
      const matching = { ...options, threshold: options.threshold ?? this.threshold };
      return faces.map((face, i) => {
        const found: Match = bank ? bank.match(embeddings[i], matching) : { status: 'unknown' };
        return { ...face, ...found, embedding: embeddings[i] };
      });
    } finally {
      if (picture !== input) picture.destroy();
    }
  }

  async destroy(): Promise<void> {
    await Promise.all([this.detector.destroy(), this.embedder.destroy()]);
  }
}

/** The face a portrait is of: large and near the middle. Area minus a penalty for the distance of its centre. */
export function mainFace<F extends Face>(faces: readonly F[], width: number, height: number): F | undefined {
  const weight = ({ box }: Face) => {
    const dx = (box.x1 + box.x2 - width) / 2;
    const dy = (box.y1 + box.y2 - height) / 2;
    return (box.x2 - box.x1) * (box.y2 - box.y1) - 2 * (dx * dx + dy * dy);
  };
  return faces.reduce<F | undefined>(
    (best, face) => (!best || weight(face) > weight(best) ? face : best),
    undefined,
  );
}
