// From data folders and teachers' files to one source of batches.
import { createHash } from 'node:crypto';
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

/**
 * @param data folders, lists, or packs.
 * @param teachers a file of embeddings for each of them, undefined where there is none.
 */
export async function openSets(
  data: readonly string[],
  teachers: readonly (string | undefined)[],
  options: OpenDataOptions,
): Promise<PackedSet[]> {
  if (teachers.length > 0 && teachers.length !== data.length)
    throw new WfrError(
      `There are ${data.length} data sets and ${teachers.length} teacher files: give one for each, in the same order, - for none.`,
    );
  const sets: PackedSet[] = [];
  for (const [i, source] of data.entries()) {
    const pack = await packOf(source, options);
    const file = teachers[i];
    sets.push({ pack, teacher: file === undefined ? undefined : await readTeacher(file, pack) });
  }
  return sets;
}

async function packOf(source: string, options: OpenDataOptions): Promise<Pack> {
  if (await isPack(source)) {
    const pack = await openPack(source);
    if (pack.index.side !== options.side)
      throw new WfrError(
        `${source} holds pictures of ${pack.index.side} pixels, ${options.side} are needed: pack its data anew.`,
      );
    return pack;
  }
  const listing = await listPictures(source);
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
