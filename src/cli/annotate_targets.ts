// Which file each annotated picture or video goes to.
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { WfrError } from '../gpu/errors.js';
import { OUTPUT_FORMATS, outputFormatOf } from '../media/annotate.node.js';
import { type Input, isVideoName } from '../media/files.node.js';
import { containerOf, VIDEO_CONTAINERS } from '../media/video/write.node.js';
import { targetsBelow } from './targets.js';

/**
 * @param out a folder, or a file name where there is one input
 * @param format format of pictures, where one was asked for
 * @throws WfrError when the names cannot be had
 */
export function annotateTargets(
  files: readonly Input[],
  out: string,
  format: string | undefined,
): (input: Pick<Input, 'path'>) => string {
  const isFolder = existsSync(out) && statSync(out).isDirectory();
  const named = outputFormatOf(out) ?? containerOf(out);
  const [single] = files.length === 1 ? files : [];
  const video = single !== undefined && isVideoName(single.path);
  const wrong = new WfrError(
    video
      ? `--out ${out}: videos are written as ${VIDEO_CONTAINERS.join(', ')}.`
      : `--out ${out}: pictures are written as ${OUTPUT_FORMATS.join(', ')}.`,
  );
  if (named && !isFolder) {
    if (!single)
      throw new WfrError(
        `--out ${out} is one file, but ${files.length} pictures or videos were given: name a folder.`,
      );
    if (video !== (containerOf(out) !== undefined)) throw wrong;
    if (format && !video && format !== named)
      throw new WfrError(`--out ${out} and --format ${format} disagree.`);
    if (path.resolve(single.path) === path.resolve(out))
      throw new WfrError(
        `${out} is one of the files given: choose another --out, so that no original is overwritten.`,
      );
    return () => out;
  }
  if (path.extname(out) && single && !existsSync(out)) throw wrong;
  return targetsBelow(out, files, (f) =>
    isVideoName(f.path) ? '.mp4' : `.${format ?? outputFormatOf(f.relative) ?? 'jpg'}`,
  );
}
