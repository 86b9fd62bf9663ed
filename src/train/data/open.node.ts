// From data folders and teachers' files to one source of batches.
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { WfrError } from '../../gpu/errors.js';
import type { Picture } from '../../media/picture.js';
import { type Listing, listPictures } from './listing.node.js';
import { ensurePack, isPack, openPack, type Pack, type PackEncoding } from './pack.node.js';
import { type PackedSet, readTeacher } from './packed_source.node.js';

export interface OpenDataOptions {
  /** Folder of the packs. */
  cache: string;
  side: number;
  encoding?: PackEncoding;
  /** Aligns pictures that are not side × side. */
  align?: (picture: Picture) => Promise<Picture | undefined>;
  /** A pack is to be made: hears of every picture. */
  onPacking?: (listing: Listing) => { step(name?: string): void; note(line: string): void; stop(): void };
  signal?: AbortSignal;
}

/** A data set as it was found: its pictures listed, or a pack; and its teacher's file. */
export interface FoundSet {
  source: string;
  data: Listing | Pack;
  teacher?: string;
}

/**
 * @param data folders, lists, or packs.
 * @param teachers a file of embeddings for each of them, undefined where there is none.
 */
export async function openSets(
  data: readonly string[],
  teachers: readonly (string | undefined)[],
  options: OpenDataOptions,
): Promise<PackedSet[]> {
  return packSets(await findSets(data, teachers, options.side), options);
}

/**
 * Lists what there is; nothing is written.
 * @throws WfrError when a set or a teacher's file is missing, malformed or does not fit.
 */
export async function findSets(
  data: readonly string[],
  teachers: readonly (string | undefined)[],
  side: number,
): Promise<FoundSet[]> {
  if (teachers.length > 0 && teachers.length !== data.length)
    throw new WfrError(
      `There are ${data.length} data sets and ${teachers.length} teacher files: give one for each, in the same order, - for none.`,
    );
  const found: FoundSet[] = [];
  for (const [i, source] of data.entries()) {
    const teacher = teachers[i];
    if (teacher !== undefined && !(await stat(teacher).catch(() => undefined))?.isFile())
      throw new WfrError(`${teacher}: no such file of a teacher's embeddings.`);
    found.push({ source, data: await findSet(source, side), teacher });
  }
  return found;
}

async function findSet(source: string, side: number): Promise<Listing | Pack> {
  if (!(await isPack(source))) return listPictures(source);
  const pack = await openPack(source);
  if (pack.index.side !== side)
    throw new WfrError(
      `${source} holds pictures of ${pack.index.side} pixels, ${side} are needed: pack its data anew.`,
    );
  return pack;
}

/** Packs what is listed, where its pack is missing or old. */
export async function packSets(found: readonly FoundSet[], options: OpenDataOptions): Promise<PackedSet[]> {
  const sets: PackedSet[] = [];
  for (const { data, teacher } of found) {
    const pack = 'index' in data ? data : await packOf(data, options);
    sets.push({ pack, teacher: teacher === undefined ? undefined : await readTeacher(teacher, pack) });
  }
  return sets;
}

async function packOf(listing: Listing, options: OpenDataOptions): Promise<Pack> {
  const { source } = listing;
  const { side, encoding, align, signal } = options;
  const place = createHash('sha256').update(path.resolve(source)).digest('hex').slice(0, 8);
  const file = path.join(options.cache, `${path.basename(path.resolve(source))}-${place}.pack`);
  let progress: ReturnType<NonNullable<OpenDataOptions['onPacking']>> | undefined;
  try {
    return await ensurePack(listing, file, {
      side,
      encoding,
      align,
      signal,
      onPicture: (name, problem) => {
        progress ??= options.onPacking?.(listing);
        if (problem) progress?.note(`${source}: ${name}: ${problem}`);
        progress?.step(name);
      },
    });
  } finally {
    progress?.stop();
  }
}
