// Where `wfr tune` keeps what it measured, a file for all adapters of a machine, and how commands find it.
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { checkTuning, type Tuning } from '../gpu/traits.js';
import { writeAtomically } from '../media/files.node.js';
import { cacheFolder } from '../weights/load.node.js';

/** Rises when kernels change so that what was measured tells nothing any more. */
const VERSION = 1;

interface TuningFile {
  version: number;
  /** By the adapter's names, the driver's version among them. */
  adapters: Record<string, Tuning>;
}

export const tuningFile = (): string => path.join(cacheFolder(), 'tuning.json');

type Names = Pick<GPUAdapterInfo, 'vendor' | 'architecture' | 'device' | 'description'>;
const keyOf = ({ vendor, architecture, device, description }: Names): string =>
  JSON.stringify([vendor, architecture, device, description]);

/** What was measured on an adapter with its present driver; a file that says nothing sensible is told of and ignored. */
export async function storedTuning(
  info: Names,
  warn: (line: string) => void = (line) => console.error(line),
): Promise<Tuning | undefined> {
  try {
    return checkTuning((await readTunings())?.adapters[keyOf(info)]);
  } catch (error) {
    const why = (error as Error).message.replace(/\.?$/, '.');
    warn(`wfr: ${tuningFile()} is ignored: ${why} wfr tune writes it anew.`);
    return undefined;
  }
}

/** Keeps a tuning beside those of other adapters. A file that cannot be used is replaced. */
export async function storeTuning(info: Names, { side, workgroups }: Tuning): Promise<void> {
  const before = await readTunings().catch(() => undefined);
  const file: TuningFile = {
    version: VERSION,
    adapters: { ...before?.adapters, [keyOf(info)]: { side, workgroups } },
  };
  await writeAtomically(tuningFile(), `${JSON.stringify(file, null, 2)}\n`);
}

/** Forgets the tunings of all adapters. */
export const resetTunings = (): Promise<void> => rm(tuningFile(), { force: true });

/** @throws Error when there is a file but not one of this version. */
async function readTunings(): Promise<TuningFile | undefined> {
  let text: string;
  try {
    text = await readFile(tuningFile(), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  let file: Partial<TuningFile> | null;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error('it is no JSON.');
  }
  if (typeof file?.adapters !== 'object' || file.adapters === null || Array.isArray(file.adapters))
    throw new Error('it holds no tunings.');
  if (file.version !== VERSION) throw new Error(`it is of another version than ${VERSION}.`);
  return file as TuningFile;
}
