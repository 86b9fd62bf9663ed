import { randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { glob } from 'tinyglobby';
import { WfrError } from '../gpu/errors.js';
import { MediaError } from './errors.js';

/** Endings of the picture formats that `decodePicture` reads. */
export const PICTURE_EXTENSIONS = ['.jpg', '.jpeg', '.png', '.webp', '.avif', '.gif', '.bmp'] as const;

export const isPictureName = (name: string): boolean =>
  (PICTURE_EXTENSIONS as readonly string[]).includes(path.extname(name).toLowerCase());

const MAX_PICTURE_BYTES = 512 * 1024 * 1024;

/**
 * The bytes of a picture's file. What is no file is not opened: a pipe would keep its reader waiting for ever.
 * @throws MediaError for what is no file, or larger than 512 MiB; the system's error where it cannot be read.
 */
export async function readPictureFile(file: string): Promise<Buffer> {
  const info = await stat(file);
  if (info.isDirectory()) throw new MediaError('is a folder');
  if (!info.isFile()) throw new MediaError('is no file but a pipe or device');
  if (info.size > MAX_PICTURE_BYTES)
    throw new MediaError(`is larger than 512 MiB (${Math.round(info.size / 2 ** 20)})`);
  return readFile(file);
}

/** Endings of videos: what ffmpeg commonly reads. */
const VIDEO_EXTENSIONS =
  '.mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .asf .flv .3gp .3g2 .ogv .mxf .vob .y4m'.split(
    ' ',
  );

export const isVideoName = (name: string): boolean =>
  VIDEO_EXTENSIONS.includes(path.extname(name).toLowerCase());

/**
 * Writes a file under a temporary name beside it and renames it, so that the final name never holds half a
 * file. Missing folders are made.
 */
export async function writeAtomically(file: string, content: Uint8Array | string): Promise<void> {
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    await writeFile(temporary, content);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * Whether `writeAtomically` could write this file, tried out in its folder or the nearest one that exists: for
 * asking before long work, not after it. Nothing stays behind.
 * @throws WfrError when the file cannot be written there.
 */
export async function requireWritable(file: string): Promise<void> {
  const target = path.resolve(file);
  if (existsSync(target) && statSync(target).isDirectory())
    throw new WfrError(`${file} is a folder: name a file to write.`);
  await requireWritableIn(
    nearestExisting(path.dirname(target)),
    (why) => `${file} cannot be written: ${why}. Name a file elsewhere.`,
  );
}

/**
 * Whether files could be written below this folder, which need not exist: as `requireWritable`, for a folder.
 * @throws WfrError when it is a file, or cannot be made or written to.
 */
export async function requireFolder(folder: string): Promise<void> {
  const target = path.resolve(folder);
  const place = nearestExisting(target);
  if (!statSync(place).isDirectory())
    throw new WfrError(
      place === target
        ? `${folder} is a file: name a folder.`
        : `${folder} cannot be made: ${place} is a file. Name a folder elsewhere.`,
    );
  await requireWritableIn(place, (why) => `${folder} cannot be written to: ${why}. Name a folder elsewhere.`);
}

function nearestExisting(place: string): string {
  let at = place;
  while (!existsSync(at) && at !== path.dirname(at)) at = path.dirname(at);
  return at;
}

async function requireWritableIn(folder: string, message: (why: string) => string): Promise<void> {
  const probe = path.join(folder, `.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
  try {
    await writeFile(probe, '');
  } catch (error) {
    throw new WfrError(message((error as Error).message));
  } finally {
    await rm(probe, { force: true }).catch(() => undefined);
  }
}

export interface Input {
  path: string;
  /** Path relative to the folder or pattern it was found through; the file's name for a file given by name. */
  relative: string;
}

export interface Inputs {
  files: Input[];
  /** Arguments that named nothing, with the reason. */
  problems: { path: string; reason: string }[];
}

const byName = new Intl.Collator('en', { numeric: true });

/**
 * Expands files, folders (recursive) and globs, each file once, in natural order. Files given by name are taken as they
 * are.
 * @param wanted which files of folders and globs to take; pictures by default
 * @param what their name in messages
 */
export async function expandInputs(
  args: readonly string[],
  wanted: (name: string) => boolean = isPictureName,
  what = 'picture',
): Promise<Inputs> {
  const found = new Map<string, Input>();
  const problems: Inputs['problems'] = [];
  const add = (file: string, relative: string) => {
    const key = path.resolve(file);
    if (!found.has(key)) found.set(key, { path: file, relative });
  };
  for (const argument of args) {
    if (existsSync(argument)) {
      if (statSync(argument).isDirectory()) {
        const names = (
          await glob('**/*', { cwd: argument, dot: false, onlyFiles: true, expandDirectories: false })
        ).filter(wanted);
        if (names.length === 0) problems.push({ path: argument, reason: `the folder holds no ${what}s` });
        for (const name of names.sort(byName.compare)) add(path.join(argument, name), name);
      } else add(argument, path.basename(argument));
      continue;
    }
    const isGlob = /[*?[{]/.test(argument);
    const names = isGlob
      ? (await glob(argument, { onlyFiles: true, expandDirectories: false })).filter(wanted)
      : [];
    if (names.length === 0)
      problems.push({
        path: argument,
        reason: isGlob ? `the pattern matches no ${what}` : 'no such file or folder',
      });
    for (const name of names.sort(byName.compare)) add(name, path.basename(name));
  }
  return { files: [...found.values()], problems };
}
