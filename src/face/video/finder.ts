import type { Gpu } from '../../gpu/gpu.js';
import type { I420Frame, Rotation, YuvMatrix } from '../../media/video/i420.js';
import type { Mtcnn } from '../detector.js';
import type { Embedder } from '../embedder.js';
import { GpuPicture } from '../gpu_picture.js';
import type { Detection } from './tracker.js';

/** How a stored frame is to be looked at. */
export interface FrameView {
  matrix: YuvMatrix;
  rotation: Rotation;
}

/**
 * Finds the faces of a frame, in pixels of the displayed frame, with embeddings where it can. It must have taken what it
 * needs of the frame's bytes when it returns its promise: they may be drawn on before the promise settles.
 */
export type FindFaces = (frame: I420Frame, view: FrameView) => Promise<Detection[]>;

/** Detector and recogniser on the GPU. The frame crosses to it once, as I420. */
export class GpuFinder {
  /** Milliseconds from asking to having, summed over the frames looked at; calls may overlap. */
  readonly times = { detect: 0, embed: 0, frames: 0 };

  constructor(
    private readonly gpu: Gpu,
    private readonly detector: Mtcnn,
    /** Without it faces are found and followed, not told apart. */
    private readonly embedder: Embedder | undefined,
    private readonly options: { minFace?: number } = {},
  ) {}

  readonly find: FindFaces = async (frame, { matrix, rotation }) => {
    const start = performance.now();
    const picture = await GpuPicture.fromFrame(this.gpu, frame, matrix, rotation);
    try {
      const faces = await this.detector.detect(picture, this.options);
      const detected = performance.now();
      this.times.detect += detected - start;
      this.times.frames++;
      if (!this.embedder || faces.length === 0) return faces;
      const points = faces.map((f) => f.landmarks);
      const embeddings = await this.embedder.embed(picture, points);
      this.times.embed += performance.now() - detected;
      return faces.map((face, i) => ({ ...face, embedding: embeddings[i] }));
    } finally {
      picture.destroy();
    }
  };
}
