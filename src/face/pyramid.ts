import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { KernelCall } from '../gpu/kernel_call.js';
import { Program } from '../gpu/program.js';
import type { Executable } from '../graph/executable.js';
import type { Model } from '../graph/model.js';
import { compactCandidates } from '../kernels/candidates/compact.js';
import { resizeRectangles } from '../kernels/picture/resize.js';
import { PNET_STRIDE, PNET_WINDOW } from '../nets/mtcnn.js';
import { pyramidScales, type Regression } from './boxes.js';
import type { GpuPicture } from './gpu_picture.js';

/** A cell of a pyramid level that P-Net takes for a face. */
export interface Candidate {
  x: number;
  y: number;
  level: number;
  /** The level's size over the picture's. */
  scale: number;
  score: number;
  regression: Regression;
}

/** P-Net cells along one side of a tile: keeps the largest map under 64 MiB. */
const TILE_CELLS = 512;
const FIRST_CAPACITY = 4096;
const ENTRY_BYTES = 32;

interface Tile {
  level: number;
  scale: number;
  /** The whole level's size. */
  height: number;
  width: number;
  /** Where the tile begins in the level and its size, in pixels. */
  top: number;
  left: number;
  tileHeight: number;
  tileWidth: number;
}

/** P-Net over all levels of a picture, recorded in one submit; large levels go in tiles with the same result. */
export class Pyramid {
  #found: BufferRange;
  #list: BufferRange;
  #whole: BufferRange;

  constructor(
    private readonly gpu: Gpu,
    private readonly pnet: Model,
  ) {
    const make = (size: number, label: string): BufferRange => ({
      buffer: gpu.createStorage(size, label),
      offset: 0,
      size,
    });
    this.#found = make(16, 'candidates found');
    this.#list = make(FIRST_CAPACITY * ENTRY_BYTES, 'candidates');
    this.#whole = make(16, 'whole picture');
  }

  /** @returns every cell of every level whose score reaches the threshold, in a fixed order. */
  async candidates(
    picture: GpuPicture,
    minFace: number,
    factor: number,
    threshold: number,
  ): Promise<Candidate[]> {
    const tiles = tilesOf(picture, minFace, factor);
    if (tiles.length === 0) return [];
    const executables: Executable[] = [];
    for (const t of tiles) executables.push(await this.pnet.at([1, t.tileHeight, t.tileWidth, 3]));
    this.gpu.write(this.#whole.buffer, 0, Uint32Array.of(0, 0, picture.width, picture.height));
    for (;;) {
      const capacity = this.#list.size / ENTRY_BYTES;
      const [found, entries] = await this.run(picture, tiles, executables, threshold, capacity);
      if (found <= capacity) return decode(entries.subarray(0, found * 8), tiles);
      this.grow(found);
    }
  }

  private async run(
    picture: GpuPicture,
    tiles: readonly Tile[],
    executables: readonly Executable[],
    threshold: number,
    capacity: number,
  ): Promise<[number, Float32Array]> {
    const calls = tiles.flatMap((t, i): KernelCall<BufferRange>[] => {
      const { inputs, outputs } = executables[i];
      const part = { height: t.height, width: t.width, top: t.top, left: t.left };
      const normalisation = { mean: 127.5, scale: 1 / 128 };
      return [
        ...resizeRectangles(picture.operand, this.#whole, inputs.get('x')!, normalisation, part),
        ...compactCandidates(outputs.get('prob')!, outputs.get('box')!, this.#found, this.#list, {
          threshold,
          level: t.level,
          capacity,
          left: t.left / PNET_STRIDE,
          top: t.top / PNET_STRIDE,
        }),
      ];
    });
    const program = await Program.create(this.gpu, calls);
    try {
      const [found, entries] = await this.gpu.runAndRead(
        (encoder) => {
          encoder.clearBuffer(this.#found.buffer);
          // Tiles of one size share an executable and its buffers: each is read before the next is written.
          tiles.forEach((_, i) => {
            program.record(encoder, 2 * i, 2 * i + 1);
            executables[i].record(encoder);
            program.record(encoder, 2 * i + 1, 2 * i + 2);
          });
        },
        [this.#found, this.#list],
      );
      return [new Uint32Array(found)[0], new Float32Array(entries)];
    } finally {
      program.destroy();
    }
  }

  private grow(entries: number): void {
    this.gpu.destroyBuffer(this.#list.buffer);
    const size = 2 ** Math.ceil(Math.log2(entries)) * ENTRY_BYTES;
    this.#list = { buffer: this.gpu.createStorage(size, 'candidates'), offset: 0, size };
  }

  async destroy(): Promise<void> {
    for (const range of [this.#found, this.#list, this.#whole]) this.gpu.destroyBuffer(range.buffer);
    await this.pnet.destroy();
  }
}

function tilesOf(picture: GpuPicture, minFace: number, factor: number): Tile[] {
  const tiles: Tile[] = [];
  for (const [level, scale] of pyramidScales(picture.width, picture.height, minFace, factor).entries()) {
    const height = Math.trunc(picture.height * scale + 1);
    const width = Math.trunc(picture.width * scale + 1);
    for (const [top, tileHeight] of spans(height)) {
      for (const [left, tileWidth] of spans(width))
        tiles.push({ level, scale, height, width, top, left, tileHeight, tileWidth });
    }
  }
  return tiles;
}

/** Begins and lengths along one side. The last takes what is left, so that pooling meets the border as it would untiled. */
function spans(length: number): [number, number][] {
  const step = TILE_CELLS * PNET_STRIDE;
  const out: [number, number][] = [];
  let begin = 0;
  for (; length - begin > step + 2 * PNET_WINDOW; begin += step)
    out.push([begin, step + PNET_WINDOW - PNET_STRIDE]);
  out.push([begin, length - begin]);
  return out;
}

function decode(entries: Float32Array, tiles: readonly Tile[]): Candidate[] {
  const scales = new Map(tiles.map((t) => [t.level, t.scale]));
  const found: Candidate[] = [];
  for (let i = 0; i < entries.length; i += 8) {
    const [x, y, score, level, ...regression] = entries.subarray(i, i + 8);
    found.push({
      x,
      y,
      score,
      level,
      scale: scales.get(level)!,
      regression: regression as unknown as Regression,
    });
  }
  // The GPU gathers in no order; equal scores must fall the same way in every run.
  return found.sort((a, b) => a.level - b.level || b.score - a.score || a.y - b.y || a.x - b.x);
}
