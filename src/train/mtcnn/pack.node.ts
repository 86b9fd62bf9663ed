/**
 * Samples of one net packed in one file, so that epochs read no pictures: a line of JSON {format, size, count}, then for
 * each sample its 14 f32 targets (box, points), its task bits (u8) and its pixels (u8, size × size × 3), as three arrays.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { WfrError } from '../../gpu/errors.js';
import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import { writeAtomically } from '../../media/files.node.js';
import { type Samples, TARGETS } from './vary.js';

/** Collects samples; grows as needed. */
export class SampleSink {
  #targets = new Float32Array(TARGETS * 1024);
  #tasks = new Uint8Array(1024);
  #pixels: Uint8Array;
  count = 0;

  constructor(readonly size: number) {
    this.#pixels = new Uint8Array(1024 * size * size * 3);
  }

  add(tasks: number, pixels: Uint8Array, box?: ArrayLike<number>, points?: ArrayLike<number>): void {
    if (this.count === this.#tasks.length) {
      this.#targets = grown(this.#targets, new Float32Array(this.#targets.length * 2));
      this.#tasks = grown(this.#tasks, new Uint8Array(this.#tasks.length * 2));
      this.#pixels = grown(this.#pixels, new Uint8Array(this.#pixels.length * 2));
    }
    this.#tasks[this.count] = tasks;
    if (box && tasks & TASK.box) this.#targets.set(box, this.count * TARGETS);
    if (points && tasks & TASK.points) this.#targets.set(points, this.count * TARGETS + 4);
    this.#pixels.set(pixels, this.count * pixels.length);
    this.count++;
  }

  pack(): Samples {
    const { size, count } = this;
    return {
      size,
      count,
      targets: this.#targets.subarray(0, count * TARGETS),
      tasks: this.#tasks.subarray(0, count),
      pixels: this.#pixels.subarray(0, count * size * size * 3),
    };
  }
}

function grown<T extends Float32Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

const bytesOf = (a: Float32Array | Uint8Array): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);

/** The header is filled up with blanks so that the targets begin at a multiple of four. */
export async function writePack(
  file: string,
  { size, count, targets, tasks, pixels }: Samples,
): Promise<void> {
  let header = JSON.stringify({ format: 'wfr-samples-1', size, count });
  header = `${header.padEnd(Math.ceil((header.length + 1) / 4) * 4 - 1)}\n`;
  await writeAtomically(file, Buffer.concat([Buffer.from(header), bytesOf(targets), tasks, pixels]));
}

/** @returns undefined where there is no file. @throws WfrError when it is none of this program or cut short. */
export async function readPack(file: string): Promise<Samples | undefined> {
  if (!existsSync(file)) return undefined;
  const bytes = await readFile(file);
  const fail = () => new WfrError(`${file}: not a pack of samples, or damaged; delete it and start again.`);
  const start = bytes.indexOf(10) + 1;
  let header: { format?: string; size: number; count: number };
  try {
    header = JSON.parse(bytes.toString('utf8', 0, start));
  } catch {
    throw fail();
  }
  const { format, size, count } = header;
  const targetBytes = count * TARGETS * 4;
  if (format !== 'wfr-samples-1' || bytes.length !== start + targetBytes + count * (1 + size * size * 3))
    throw fail();
  const at = start + targetBytes;
  return {
    size,
    count,
    targets: new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + at)),
    tasks: bytes.subarray(at, at + count),
    pixels: bytes.subarray(at + count),
  };
}
