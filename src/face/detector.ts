import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { Executable } from '../graph/executable.js';
import { Model } from '../graph/model.js';
import { resizeRectangles } from '../kernels/picture/resize.js';
import { ONET_SIZE, onet, pnet, RNET_SIZE, rnet } from '../nets/mtcnn.js';
import type { WeightsMetadata } from '../weights/metadata.js';
import type { StateDict } from '../weights/state_dict.js';
import {
  type Box,
  calibrate,
  cellBox,
  landmarksIn,
  nonMaximumSuppression,
  pixelsOf,
  type Regression,
  type ScoredBox,
  toSquare,
  votedBox,
} from './boxes.js';
import { checkOptions, type DetectOptions, defaultsOf, type Thresholds } from './detect_options.js';
import { FaceError } from './errors.js';
import { GpuPicture, type PictureSource } from './gpu_picture.js';
import { CACHED_SIZES, type Candidate, Pyramid } from './pyramid.js';
import { Queue } from './queue.js';
import { SecondLook } from './second_look.js';

export type { DetectOptions };

/** A face in pixels of the picture. The box may reach outside it where the face is cut off by the border. */
export interface Face {
  box: Box;
  /** 0…1, O-Net's softmax. */
  score: number;
  /** Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them. */
  landmarks: readonly (readonly [number, number])[];
}

const NORMALISATION = { mean: 127.5, scale: 1 / 128 };
/** Batch sizes that are compiled; a last part is filled up with empty work. */
const RNET_BATCHES = [4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const ONET_BATCHES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/** More than any picture of people needs, of one level and of all; the best go on, so that time stays bounded. */
const MAX_CANDIDATES = 8192;

/**
 * Face detection by MTCNN (Zhang et al. 2016): P-Net over an image pyramid proposes, R-Net and O-Net refine.
 * The picture crosses to the GPU once; between the stages only scores, boxes and points come back.
 */
export class Mtcnn {
  readonly #queue = new Queue();

  private constructor(
    private readonly gpu: Gpu,
    private readonly pyramid: Pyramid,
    private readonly rnet: Model,
    private readonly onet: Model,
    private readonly rectangles: BufferRange,
    private readonly secondLook: SecondLook,
    /** What the weights' metadata ask for (`config.thresholds`), else 0.6, 0.7, 0.7. */
    readonly thresholds: Thresholds,
    private readonly looksTwice: boolean,
    private readonly votesBoxes: boolean,
  ) {}

  /** @throws WeightsError or WfrError when the weights are not an MTCNN's. */
  static create(gpu: Gpu, weights: { state: StateDict; metadata?: WeightsMetadata }): Mtcnn {
    if (!weights.state.has('pnet.conv1.weight'))
      throw new FaceError('These weights are not an MTCNN detector.');
    const { thresholds, secondLook, voteBoxes } = defaultsOf(weights.metadata);
    const size = RNET_BATCHES[RNET_BATCHES.length - 1] * 16;
    const rectangles = { buffer: gpu.createStorage(size, 'rectangles'), offset: 0, size };
    const onetModel = new Model(gpu, onet, weights.state);
    return new Mtcnn(
      gpu,
      new Pyramid(gpu, new Model(gpu, pnet, weights.state, { cachedSizes: CACHED_SIZES })),
      new Model(gpu, rnet, weights.state),
      onetModel,
      rectangles,
      new SecondLook(gpu, onetModel, NORMALISATION),
      thresholds,
      secondLook,
      voteBoxes,
    );
  }

  /**
   * Calls may overlap; they are worked off in order.
   * @returns faces, best score first; an empty list where there is none.
   * @throws FaceError when an option is out of its range.
   */
  async detect(input: PictureSource | GpuPicture, options: DetectOptions = {}): Promise<Face[]> {
    checkOptions(options);
    return this.#queue.add(() => this.detectNow(input, options));
  }

  private async detectNow(input: PictureSource | GpuPicture, options: DetectOptions): Promise<Face[]> {
    const picture = input instanceof GpuPicture ? input : await GpuPicture.from(this.gpu, input);
    try {
      const [, r, o] = this.thresholdsOf(options);
      const refined = await this.refine(picture, await this.first(picture, options), r);
      const votes = options.voteBoxes ?? this.votesBoxes;
      let faces = await this.finish(picture, refined, o, votes);
      if (options.secondLook ?? this.looksTwice) faces = await this.lookAgain(picture, faces, o);
      return faces.map((face) => enlarge(face, picture.scale));
    } finally {
      if (picture !== input) picture.destroy();
    }
  }

  /**
   * What a net of the cascade is asked about: after P-Net the squares that R-Net sees, after R-Net those that O-Net sees, best
   * first, in the cascade's coordinates (boxes.ts) on the GPU's picture. The later nets need no weights. This is what the
   * next net is trained on.
   */
  async propose(
    input: PictureSource | GpuPicture,
    after: 'pnet' | 'rnet',
    options: DetectOptions = {},
  ): Promise<ScoredBox[]> {
    checkOptions(options);
    return this.#queue.add(async () => {
      const picture = input instanceof GpuPicture ? input : await GpuPicture.from(this.gpu, input);
      try {
        const proposed = await this.first(picture, options);
        return after === 'pnet'
          ? proposed
          : await this.refine(picture, proposed, this.thresholdsOf(options)[1]);
      } finally {
        if (picture !== input) picture.destroy();
      }
    });
  }

  private thresholdsOf(options: DetectOptions): Thresholds {
    return options.thresholds ?? this.thresholds;
  }

  /** P-Net over the pyramid. */
  private async first(picture: GpuPicture, options: DetectOptions): Promise<ScoredBox[]> {
    const minFace = (options.minFace ?? 20) / picture.scale;
    const [least] = this.thresholdsOf(options);
    return propose(await this.pyramid.candidates(picture, minFace, options.factor ?? 0.709, least));
  }

  /** R-Net: rejects most candidates and calibrates the rest. */
  private async refine(picture: GpuPicture, boxes: readonly Box[], threshold: number): Promise<ScoredBox[]> {
    const found: ScoredBox[] = [];
    const regressions: Regression[] = [];
    const { kept, outputs } = await this.classify(this.rnet, picture, boxes, RNET_SIZE, RNET_BATCHES, [
      'prob',
      'box',
    ]);
    for (const [i, box] of kept.entries()) {
      const score = faceScore(outputs.prob, i);
      if (score <= threshold) continue;
      found.push({ ...box, score });
      regressions.push(quadruple(outputs.box, i));
    }
    return nonMaximumSuppression(found, 0.7).map((i) => ({
      ...toSquare(calibrate(found[i], regressions[i], 1)),
      score: found[i].score,
    }));
  }

  /** O-Net: the final score, box and five points. */
  private async finish(
    picture: GpuPicture,
    boxes: readonly Box[],
    threshold: number,
    votes: boolean,
  ): Promise<Face[]> {
    const faces: { box: ScoredBox; landmarks: [number, number][] }[] = [];
    const { kept, outputs } = await this.classify(this.onet, picture, boxes, ONET_SIZE, ONET_BATCHES, [
      'prob',
      'box',
      'points',
    ]);
    for (const [i, box] of kept.entries()) {
      const score = faceScore(outputs.prob, i);
      if (score <= threshold) continue;
      const landmarks = landmarksIn(box, outputs.points.subarray(10 * i));
      faces.push({ box: { ...calibrate(box, quadruple(outputs.box, i), 1), score }, landmarks });
    }
    const boxesOnly = faces.map((f) => f.box);
    return nonMaximumSuppression(boxesOnly, 0.7, 'min').map((i) => {
      const { score, ...own } = faces[i].box;
      return { box: votes ? votedBox(own, boxesOnly) : own, score, landmarks: faces[i].landmarks };
    });
  }

  private async lookAgain(picture: GpuPicture, faces: readonly Face[], threshold: number): Promise<Face[]> {
    const seen = await this.secondLook.look(
      picture,
      faces.map((f) => f.landmarks),
    );
    return faces
      .map(({ box, score }, i) => ({
        box,
        // In terms of the background's probability, as faceScore has it.
        score: 1 - (1 - score + seen[i].background) / 2,
        landmarks: seen[i].points,
      }))
      .filter((face) => face.score > threshold)
      .sort((a, b) => b.score - a.score);
  }

  /** Cuts boxes out and runs a net over them in batches of few fixed sizes. */
  private async classify(
    model: Model,
    picture: GpuPicture,
    boxes: readonly Box[],
    size: number,
    batches: readonly number[],
    names: readonly string[],
  ): Promise<{ kept: Box[]; outputs: Record<string, Float32Array> }> {
    const kept: Box[] = [];
    const pixels: (readonly [number, number, number, number])[] = [];
    for (const box of boxes) {
      const inside = pixelsOf(box, picture.width, picture.height);
      if (!inside) continue;
      kept.push(box);
      pixels.push(inside);
    }
    const parts: Record<string, Float32Array>[] = [];
    const largest = batches[batches.length - 1];
    for (let at = 0; at < kept.length; at += largest) {
      const part = pixels.slice(at, at + largest);
      const batch = batches.find((b) => b >= part.length) ?? largest;
      const executable = await model.at([batch, size, size, 3]);
      parts.push(await this.runBatch(executable, picture, part, names));
    }
    const outputs = Object.fromEntries(names.map((n) => [n, concatenate(parts.map((p) => p[n]))]));
    return { kept, outputs };
  }

  private async runBatch(
    executable: Executable,
    picture: GpuPicture,
    part: readonly (readonly number[])[],
    names: readonly string[],
  ) {
    const x = executable.inputs.get('x')!;
    // Rows past the part keep a one-pixel rectangle: their results are dropped.
    const rectangles = new Uint32Array(x.shape[0] * 4).map((_, i) => part[i >> 2]?.[i & 3] ?? (i & 2) >> 1);
    this.gpu.write(this.rectangles.buffer, 0, rectangles);
    const crop = resizeRectangles(picture.operand, this.rectangles, x, NORMALISATION);
    const outputs = await executable.runAfter(crop, names);
    return Object.fromEntries(
      names.map((n) => [n, outputs[n].subarray(0, (outputs[n].length / x.shape[0]) * part.length)]),
    );
  }

  async destroy(): Promise<void> {
    await this.#queue.add(async () => {});
    this.gpu.destroyBuffer(this.rectangles.buffer);
    this.secondLook.destroy();
    await Promise.all([this.pyramid.destroy(), this.rnet.destroy(), this.onet.destroy()]);
  }
}

/** P-Net's cells → square boxes: suppression within each level, then across, then calibration. */
function propose(candidates: readonly Candidate[]): ScoredBox[] {
  const levels = new Map<number, Candidate[]>();
  for (const c of candidates) {
    const level = levels.get(c.level);
    if (level) level.push(c);
    else levels.set(c.level, [c]);
  }
  const boxes: (ScoredBox & { regression: Regression })[] = [];
  for (const level of levels.values()) {
    // Best first, as they come.
    const found = level.slice(0, MAX_CANDIDATES).map((c) => ({
      ...cellBox(c.x, c.y, c.scale),
      score: c.score,
      regression: c.regression,
    }));
    for (const i of nonMaximumSuppression(found, 0.5)) boxes.push(found[i]);
  }
  return nonMaximumSuppression(boxes, 0.7)
    .slice(0, MAX_CANDIDATES)
    .map((i) => ({ ...toSquare(calibrate(boxes[i], boxes[i].regression, 0)), score: boxes[i].score }));
}

/**
 * A face's probability, as what the background leaves where that is little: near 1 a 32-bit float has too few steps, and
 * rounding would choose which of two sure finds of a face stays.
 */
const faceScore = (prob: Float32Array, i: number): number =>
  prob[2 * i + 1] > 0.5 ? 1 - prob[2 * i] : prob[2 * i + 1];

const quadruple = (values: Float32Array, i: number): Regression => [
  values[4 * i],
  values[4 * i + 1],
  values[4 * i + 2],
  values[4 * i + 3],
];

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

function enlarge({ box, score, landmarks }: Face, scale: number): Face {
  if (scale === 1) return { box, score, landmarks };
  const big = { x1: box.x1 * scale, y1: box.y1 * scale, x2: box.x2 * scale, y2: box.y2 * scale };
  return { box: big, score, landmarks: landmarks.map(([x, y]) => [x * scale, y * scale] as const) };
}
