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
/** Above this many candidates (32 MiB) the threshold is raised: such a picture is noise, and the best ones matter. */
const MAX_CAPACITY = 1 << 20;
const ENTRY_BYTES = 32;
/** Compiled tile sizes kept, and tiles recorded in one submit: fewer, so that none in use is ever dropped. */
export const CACHED_SIZES = 48;
const TILES_A_SUBMIT = 40;

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

/**
 * P-Net over all levels of a picture, recorded in one submit (more only above 40 tiles); large levels go in tiles
 * with the same result. Memory is bounded whatever the picture: tiles are at most 1034 pixels wide and high, and the
 * list of candidates has at most 2^20 entries.
 */
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

  /**
   * @returns every cell of every level whose score reaches the threshold, in a fixed order. Where more than 2^20
   *   do, the threshold moves halfway to 1 until fewer do.
   */
  async candidates(
    picture: GpuPicture,
    minFace: number,
    factor: number,
    threshold: number,
  ): Promise<Candidate[]> {
    const tiles = tilesOf(picture, minFace, factor);
    if (tiles.length === 0) return [];
    this.gpu.write(this.#whole.buffer, 0, Uint32Array.of(0, 0, picture.width, picture.height));
    for (let least = threshold; ; ) {
      const capacity = this.#list.size / ENTRY_BYTES;
      const [found, entries] = await this.run(picture, tiles, least, capacity);
      if (found <= capacity) return decode(entries.subarray(0, found * 8), tiles);
      if (found > MAX_CAPACITY) least = (1 + least) / 2;
      else this.grow(found);
    }
  }

  private async run(
    picture: GpuPicture,
    tiles: readonly Tile[],
    threshold: number,
    capacity: number,
  ): Promise<[number, Float32Array]> {
    let results: ArrayBuffer[] = [];
    for (let at = 0; at < tiles.length; at += TILES_A_SUBMIT) {
      const part = tiles.slice(at, at + TILES_A_SUBMIT);
      const isLast = at + TILES_A_SUBMIT >= tiles.length;
      const executables: Executable[] = [];
      for (const t of part) executables.push(await this.pnet.at([1, t.tileHeight, t.tileWidth, 3]));
      const calls = part.flatMap((t, i) => this.callsOf(picture, t, executables[i], threshold, capacity));
      const program = await Program.create(this.gpu, calls);
      try {
        results = await this.gpu.runAndRead(
          (encoder) => {
            if (at === 0) encoder.clearBuffer(this.#found.buffer);
            // Tiles of one size share an executable and its buffers: each is read before the next is written.
            part.forEach((_, i) => {
              program.record(encoder, 2 * i, 2 * i + 1);
              executables[i].record(encoder);
              program.record(encoder, 2 * i + 1, 2 * i + 2);
            });
          },
          isLast ? [this.#found, this.#list] : [],
        );
      } finally {
        program.destroy();
      }
    }
    return [new Uint32Array(results[0])[0], new Float32Array(results[1])];
  }

  /** Two calls: one writes the net's input, one gathers its output. */
  private callsOf(
    picture: GpuPicture,
    t: Tile,
    { inputs, outputs }: Executable,
    threshold: number,
    capacity: number,
  ): KernelCall<BufferRange>[] {
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
