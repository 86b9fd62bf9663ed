/**
 * Checkpoints: the state of a run in one file, written so that no moment of a crash can leave a damaged one under
 * its final name, checksummed so that a damaged one is noticed, the last few kept.
 *
 * File: the line `wfr-checkpoint-1`, the SHA-256 of all that follows it (hex, a line), then a line of JSON with the
 * caller's state and the name and length of each buffer, then the buffers.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { WfrError } from '../gpu/errors.js';

export interface Checkpoint {
  step: number;
  /** What is no buffer: anything that JSON holds. */
  state: Record<string, unknown>;
  buffers: Record<string, ArrayBuffer>;
}

const MAGIC = 'wfr-checkpoint-1\n';
const NAME = /^checkpoint-(\d{9})\.wfr$/;
const nameOf = (step: number): string => `checkpoint-${String(step).padStart(9, '0')}.wfr`;

export class CheckpointStore {
  private constructor(
    readonly folder: string,
    private readonly keep: number,
  ) {}

  /** Makes the folder and removes what an interrupted run left half written. */
  static async open(folder: string, keep = 3): Promise<CheckpointStore> {
    await mkdir(folder, { recursive: true });
    for (const name of await readdir(folder)) {
      if (name.startsWith('checkpoint-') && name.endsWith('.tmp')) await rm(path.join(folder, name));
    }
    return new CheckpointStore(folder, Math.max(1, keep));
  }

  /** Steps of which there is a file, oldest first. */
  async steps(): Promise<number[]> {
    const names = (await readdir(this.folder)).flatMap((name) => NAME.exec(name)?.[1] ?? []);
    return names.map(Number).sort((a, b) => a - b);
  }

  /**
   * On the disk when it returns, through a temporary name; then those before it go but for the last few. What there is of
   * later steps is no part of a run that stands here, and does not count.
   */
  async save({ step, state, buffers }: Checkpoint): Promise<string> {
    const entries = Object.entries(buffers);
    const header = { step, state, buffers: entries.map(([name, { byteLength }]) => [name, byteLength]) };
    const parts = [
      Buffer.from(`${JSON.stringify(header)}\n`),
      ...entries.map(([, bytes]) => new Uint8Array(bytes)),
    ];
    const hash = createHash('sha256');
    for (const part of parts) hash.update(part);
    const file = path.join(this.folder, nameOf(step));
    const temporary = `${file}.tmp`;
    const handle = await open(temporary, 'w');
    try {
      await handle.writeFile(`${MAGIC}${hash.digest('hex')}\n`);
      for (const part of parts) await handle.writeFile(part);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncFolder(this.folder);
    const until = (await this.steps()).filter((other) => other <= step);
    for (const old of until.slice(0, -this.keep))
      await rm(path.join(this.folder, nameOf(old)), { force: true });
    return file;
  }

  /**
   * The newest checkpoint that is whole.
   * @param onDamaged hears of newer ones that are not.
   */
  async latest(onDamaged: (message: string) => void = () => {}): Promise<Checkpoint | undefined> {
    for (const step of (await this.steps()).reverse()) {
      try {
        return await readCheckpoint(path.join(this.folder, nameOf(step)));
      } catch (error) {
        if (!(error instanceof WfrError)) throw error;
        onDamaged(error.message);
      }
    }
    return undefined;
  }
}

/** @throws WfrError when the file is no checkpoint or was damaged. */
export async function readCheckpoint(file: string): Promise<Checkpoint> {
  const bytes = await readFile(file);
  const fail = (why: string) => new WfrError(`${file}: ${why}`);
  if (bytes.toString('latin1', 0, MAGIC.length) !== MAGIC) throw fail('not a checkpoint of this program');
  const start = MAGIC.length + 65;
  const expected = bytes.toString('latin1', MAGIC.length, start - 1);
  if (createHash('sha256').update(bytes.subarray(start)).digest('hex') !== expected)
    throw fail('damaged: its checksum does not match');
  const end = bytes.indexOf(10, start);
  const header = JSON.parse(bytes.toString('utf8', start, end)) as Omit<Checkpoint, 'buffers'> & {
    buffers: [string, number][];
  };
  const buffers: Checkpoint['buffers'] = {};
  let at = end + 1;
  for (const [name, length] of header.buffers) {
    buffers[name] = Uint8Array.prototype.slice.call(bytes, at, at + length).buffer as ArrayBuffer;
    at += length;
  }
  return { step: header.step, state: header.state, buffers };
}

/** A rename is safe on the disk only when the folder is; not every system can open one. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
