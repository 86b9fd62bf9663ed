// The folder of a run: one run at a time writes to it, and a run that was refused leaves nothing behind.
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { WfrError } from '../../gpu/errors.js';
import { requireFolder } from '../../media/files.node.js';
import { CheckpointStore } from '../../train/checkpoint.node.js';
import { isAlive, removeLeftovers } from './leftovers.js';

interface Owner {
  pid: number;
  host: string;
}

export class RunFolder {
  private constructor(
    readonly folder: string,
    /** The topmost folder that was made for it. */
    private readonly made: string | undefined,
  ) {}

  /**
   * Makes the folder and locks it by a file with this process's number. A lock of a process that is gone is taken over, and
   * what it left half written is removed.
   * @throws WfrError when it cannot be made or another process writes to it.
   */
  static async open(folder: string): Promise<RunFolder> {
    await requireFolder(folder);
    const made = await mkdir(folder, { recursive: true });
    const opened = new RunFolder(folder, made);
    await opened.#lock();
    await removeLeftovers(folder, 'file');
    await removeLeftovers(opened.in('cache'), 'pack');
    return opened;
  }

  in(...parts: string[]): string {
    return path.join(this.folder, ...parts);
  }

  /** @throws WfrError when there are checkpoints of a run that is not to be resumed. */
  async checkpoints(keep: number, resume: boolean): Promise<CheckpointStore> {
    const store = await CheckpointStore.open(this.in('checkpoints'), keep);
    // The first checkpoint of a new run would otherwise be older than those of the last.
    if (!resume && (await store.steps()).some((step) => step > 0))
      throw new WfrError(
        `${this.folder} holds the checkpoints of a run. Add --resume to go on with it, or give another --out.`,
      );
    return store;
  }

  /** Unlocks it, and removes what is empty of what was made. */
  async close(): Promise<void> {
    await rm(this.#lockFile, { force: true });
    for (const name of ['cache', 'checkpoints']) await rmdir(this.in(name)).catch(() => {});
    if (!this.made) return;
    let at = path.resolve(this.folder);
    const top = path.dirname(path.resolve(this.made));
    // The first that is not empty ends it.
    for (; at !== top; at = path.dirname(at)) if (!(await removed(at))) return;
  }

  get #lockFile(): string {
    return this.in('lock');
  }

  async #lock(): Promise<void> {
    const file = this.#lockFile;
    const mine: Owner = { pid: process.pid, host: hostname() };
    if (await created(file, mine)) return;
    const owner = await ownerOf(file);
    if (owner && isAlive(owner)) throw inUse(this.folder, file, owner);
    await rm(file, { force: true });
    // Of two that find it stale, the later one has it.
    const isMine = (await created(file, mine)) && (await ownerOf(file))?.pid === process.pid;
    if (!isMine) throw inUse(this.folder, file, await ownerOf(file));
  }
}

const removed = (folder: string): Promise<boolean> =>
  rmdir(folder).then(
    () => true,
    () => false,
  );

/** False when the file is there already. */
async function created(file: string, owner: Owner): Promise<boolean> {
  try {
    await writeFile(file, JSON.stringify(owner), { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Undefined where a crash left the file without content. */
async function ownerOf(file: string): Promise<Owner | undefined> {
  try {
    const owner = JSON.parse(await readFile(file, 'utf8')) as Owner;
    return Number.isSafeInteger(owner.pid) && owner.pid > 0 ? owner : undefined;
  } catch {
    return undefined;
  }
}

function inUse(folder: string, file: string, owner: Owner | undefined): WfrError {
  const who = owner ? `process ${owner.pid} on ${owner.host}` : 'another process';
  return new WfrError(
    `${folder} is in use: ${who} is training there. Give another --out, or wait; if that process is no training run, remove ${file}.`,
  );
}
