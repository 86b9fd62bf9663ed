import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Weights } from './convert.js';
import { WeightsError } from './errors.js';
import { writeSafetensors } from './formats/safetensors.js';
import { metadataToStrings } from './metadata.js';
import { readWeights } from './read.js';

/** Writes weights as safetensors, under a temporary name first. Missing folders are made. */
export async function saveWeights(
  file: string,
  { state, metadata }: Weights,
  type: 'f32' | 'f16' = 'f32',
): Promise<void> {
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    await writeFile(temporary, writeSafetensors(state, metadataToStrings(metadata), type));
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Reads weights from the files of one net; errors name them. */
export async function openWeights(files: readonly string[]): Promise<Weights> {
  try {
    for (const file of files) {
      const found = await stat(file).catch(() => undefined);
      if (!found?.isFile())
        throw new WeightsError(
          `${found ? 'a folder, not a' : 'no such'} file. wfr weights list tells where weights in use lie.`,
        );
      if (found.size > 4 * 1024 ** 3) throw new WeightsError('larger than 4 GiB');
    }
    return readWeights(await Promise.all(files.map((f) => readFile(f))));
  } catch (error) {
    if (error instanceof WeightsError) throw new WeightsError(`${files.join(', ')}: ${error.message}`);
    throw error;
  }
}
