// Reading many pictures: the next ones are decoded while the GPU works on this one, and a bad one is reported.
import { WfrError } from '../gpu/errors.js';
import { readPicture } from '../media/decode.node.js';
import { expandInputs, type Input, type Inputs } from '../media/files.node.js';
import type { Picture } from '../media/picture.js';
import { progress } from './progress.js';

export interface PictureRun {
  /** Pictures handled and pictures that could not be. */
  done: number;
  failed: { path: string; reason: string }[];
}

/**
 * Calls `work` for every picture that the arguments name (or that they were expanded to), in order. Up to `jobs` pictures are decoded ahead.
 * Errors of one picture do not end the run; an abort between two pictures does.
 * @throws WfrError when the arguments name no picture at all.
 */
export async function forEachPicture(
  inputs: readonly string[] | Inputs,
  options: { jobs: number; signal: AbortSignal; quiet?: boolean },
  work: (picture: Picture, input: Input) => Promise<void>,
): Promise<PictureRun> {
  const { files, problems } = 'files' in inputs ? inputs : await expandInputs(inputs);
  const failed = problems.map(({ path, reason }) => ({ path, reason }));
  if (files.length === 0)
    throw new WfrError(`No pictures to work on: ${failed.map((f) => `${f.path}: ${f.reason}`).join('; ')}.`);
  const bar = progress(files.length, 'pictures');
  const complain = (path: string, reason: string) => bar.note(`${path}: ${reason}`);
  for (const { path, reason } of failed) complain(path, reason);
  const ahead: Promise<Picture | Error>[] = [];
  const decode = (i: number) => {
    if (i < files.length) ahead[i] = readPicture(files[i].path).catch((error: Error) => error);
  };
  for (let i = 0; i < options.jobs; i++) decode(i);
  let done = 0;
  try {
    for (const [i, input] of files.entries()) {
      options.signal.throwIfAborted();
      const picture = await ahead[i];
      delete ahead[i];
      decode(i + options.jobs);
      try {
        if (picture instanceof Error) throw picture;
        await work(picture, input);
        done++;
      } catch (error) {
        // A lost device or a programming error concerns every picture; what a picture causes is a WfrError.
        if (!(error instanceof WfrError) || error.name === 'GpuError') throw error;
        const reason = error.message.replace(`${input.path}: `, '');
        failed.push({ path: input.path, reason });
        complain(input.path, reason);
      }
      bar.step(input.relative);
    }
  } finally {
    bar.stop();
  }
  if (failed.length > 0) process.exitCode = 1;
  return { done, failed };
}
