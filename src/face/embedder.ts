import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { Executable } from '../graph/executable.js';
import { Model } from '../graph/model.js';
import { type ChannelOrder, warpFaces } from '../kernels/picture/warp.js';
import { averaged, type Picture } from '../media/picture.js';
import { type Recogniser, recogniserOf } from '../nets/registry.js';
import type { Weights } from '../weights/convert.js';
import { type Affine, invert, type Points, similarity, templateFor } from './align.js';
import { FaceError } from './errors.js';
import { GpuPicture, type PictureSource } from './gpu_picture.js';
import { Queue } from './queue.js';

export interface EmbedderOptions {
  /** Add the embedding of the mirror image before normalising. Default true. */
  flip?: boolean;
  /** Storage of maps and convolution weights. Default f32. */
  precision?: 'f32' | 'f16';
}

/** Faces a batch; a last part is filled up with empty work. With flip each face is two rows. */
const BATCHES = [1, 2, 3, 4, 6, 8, 12, 16];
const IDENTITY: Affine = [1, 0, 0, 0, 1, 0];

/** Turns faces into unit vectors: aligned by their landmarks on the GPU, batched, e = f(x) + f(mirror x). */
export class Embedder {
  readonly #queue = new Queue();

  private constructor(
    readonly gpu: Gpu,
    private readonly net: Recogniser,
    private readonly model: Model,
    private readonly maps: BufferRange,
    readonly flip: boolean,
  ) {}

  /** @throws WeightsError or FaceError when the weights are no recogniser's. */
  static create(gpu: Gpu, weights: Weights, options: EmbedderOptions = {}): Embedder {
    const net = recogniserOf(weights.metadata.net, weights.metadata);
    if (!net)
      throw new FaceError(
        `Weights of net ${weights.metadata.net} do not recognise faces: a mobilefacenet or an iresnet is needed.`,
      );
    const model = new Model(gpu, net.build, weights.state, { precision: options.precision });
    const size = BATCHES[BATCHES.length - 1] * 32;
    const maps = { buffer: gpu.createStorage(size, 'alignment'), offset: 0, size };
    return new Embedder(gpu, net, model, maps, options.flip ?? true);
  }

  /** Length of an embedding. */
  get dimension(): number {
    return this.net.dimension;
  }

  get inputSize(): { height: number; width: number } {
    return { height: this.net.height, width: this.net.width };
  }

  /**
   * @param landmarks five points a face, in pixels of the picture.
   * @returns one unit vector a face, in the same order.
   */
  async embed(input: PictureSource | GpuPicture, landmarks: readonly Points[]): Promise<Float32Array[]> {
    if (landmarks.length === 0) return [];
    const picture = input instanceof GpuPicture ? input : await GpuPicture.from(this.gpu, input);
    try {
      const template = templateFor(this.net.height, this.net.width);
      const maps = landmarks.map((points) => {
        const scaled = points.map(([x, y]) => [x / picture.scale, y / picture.scale] as const);
        return invert(similarity(scaled, template));
      });
      return await this.#queue.add(() => this.embedMapped(picture, maps, this.reduction));
    } finally {
      if (picture !== input) picture.destroy();
    }
  }

  /**
   * Faces that are aligned already, many a batch. A picture of another size than the net's is centred on it, to the
   * whole pixel: 112×112 for a 112×96 net loses 8 pixels either side, a smaller one gets a black border. For a net of
   * half the template's height (or a third) one of 112 is averaged down first, as in training.
   */
  async embedAligned(pictures: readonly Picture[]): Promise<Float32Array[]> {
    const { height, width } = this.net;
    const largest = BATCHES[BATCHES.length - 1];
    const embeddings: Float32Array[] = [];
    for (let at = 0; at < pictures.length; at += largest) {
      // One below the other in one upload; maps are whole pixels apart, so that no face sees its neighbour.
      const part = pictures.slice(at, at + largest);
      const sheet = new Uint8Array(part.length * height * width * 4);
      for (const [i, p] of part.entries()) {
        const isReduced = this.reduction > 1 && p.height === height * this.reduction;
        centre(isReduced ? averaged(p, this.reduction) : p, sheet, i * height, height, width);
      }
      const picture = GpuPicture.upload(this.gpu, { width, height: part.length * height, data: sheet });
      const maps = part.map((_, i): Affine => [1, 0, 0, 0, 1, i * height]);
      try {
        embeddings.push(...(await this.#queue.add(() => this.embedMapped(picture, maps, 1))));
      } finally {
        picture.destroy();
      }
    }
    return embeddings;
  }

  /** How much smaller the net's input is than the template's 112 pixels, in whole steps. */
  private get reduction(): number {
    return Math.max(1, Math.round(112 / this.net.height));
  }

  private async embedMapped(
    picture: GpuPicture,
    maps: readonly Affine[],
    samples: number,
  ): Promise<Float32Array[]> {
    const embeddings: Float32Array[] = [];
    const largest = BATCHES[BATCHES.length - 1];
    for (let at = 0; at < maps.length; at += largest) {
      const part = maps.slice(at, at + largest);
      const batch = BATCHES.find((b) => b >= part.length) ?? largest;
      const rows = this.flip ? 2 * batch : batch;
      const executable = await this.model.at([rows, this.net.height, this.net.width, this.net.channels]);
      await this.model.trim();
      embeddings.push(...(await this.runBatch(executable, picture, part, samples)));
    }
    return embeddings;
  }

  private async runBatch(
    executable: Executable,
    picture: GpuPicture,
    part: readonly Affine[],
    samples: number,
  ): Promise<Float32Array[]> {
    const x = executable.inputs.get('x')!;
    const rows = x.shape[0];
    const batch = this.flip ? rows / 2 : rows;
    const maps = new Float32Array(batch * 8);
    for (let i = 0; i < batch; i++) maps.set([...(part[i] ?? IDENTITY), samples], i * 8);
    this.gpu.write(this.maps.buffer, 0, maps);
    const { mean, scale, order } = this.net.preprocessing;
    const options = { mean, scale, order: order as ChannelOrder, mirror: this.flip };
    const warp = warpFaces(picture.operand, this.maps, x, options);
    const { embedding } = await executable.runAfter(warp, ['embedding']);
    return part.map((_, i) => this.combine(embedding, i, batch));
  }

  /** Adds the mirror image's embedding and normalises to length one. */
  private combine(values: Float32Array, i: number, batch: number): Float32Array {
    const d = this.dimension;
    const out = values.slice(i * d, (i + 1) * d);
    if (this.flip) for (let k = 0; k < d; k++) out[k] += values[(batch + i) * d + k];
    const norm = Math.max(Math.hypot(...out), 1e-12);
    return out.map((v) => v / norm);
  }

  async destroy(): Promise<void> {
    await this.#queue.add(async () => {});
    this.gpu.destroyBuffer(this.maps.buffer);
    await this.model.destroy();
  }
}

/** Copies the middle of a picture into rows `top` … `top` + height of a sheet. */
function centre(p: Picture, sheet: Uint8Array, top: number, height: number, width: number): void {
  const dx = Math.floor((p.width - width) / 2);
  const dy = Math.floor((p.height - height) / 2);
  const [x0, x1] = [Math.max(0, -dx), Math.min(width, p.width - dx)];
  for (let y = Math.max(0, -dy); y < Math.min(height, p.height - dy); y++) {
    const from = ((y + dy) * p.width + x0 + dx) * 4;
    sheet.set(p.data.subarray(from, from + (x1 - x0) * 4), ((top + y) * width + x0) * 4);
  }
}
