/**
 * A pack: the aligned pictures of a data set in one file, so that no epoch after the first decodes or opens many files,
 * and a data set travels as one.
 *
 * File: the line `wfr-pack-1`, the pictures one after another, a JSON index, then its offset and length as two u64.
 * `raw` pictures are RGB bytes, side × side × 3, read straight through the system's page cache; `compressed` ones
 * are picture files, a tenth of the size, decoded by the worker threads each time.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { freemem } from 'node:os';
import path from 'node:path';
import { GpuError, WfrError } from '../../gpu/errors.js';
import { encodePicture } from '../../media/annotate.node.js';
import { decodePicture } from '../../media/decode.node.js';
import { readPictureFile } from '../../media/files.node.js';
import type { Picture } from '../../media/picture.js';
import { WeightsError } from '../../weights/errors.js';
import type { Listing } from './listing.node.js';
import { resize } from './resample.js';

export type PackEncoding = 'raw' | 'compressed';

export interface PackIndex {
  side: number;
  encoding: PackEncoding;
  /** Changes with the pictures and how they were packed. */
  key: string;
  /** Pictures in the order of the listing. */
  names: string[];
  /** Identity of each, null where unknown. */
  identities: (string | null)[];
  /** Row of each in the listing (pictures that could not be read are missing here). */
  rows: number[];
  /** Start of each picture; the last number is the end. */
  offsets: number[];
  /** Rows of the listing. */
  listed: number;
  /** Pictures left out, with the reason. */
  skipped: [name: string, reason: string][];
  /** SHA-256 of the pictures as they lie in the file; packs made before it was kept have none. */
  digest?: string;
}

export interface Pack {
  file: string;
  index: PackIndex;
}

export interface PackOptions {
  /** Side of the aligned pictures. Default 112. */
  side?: number;
  /** By default raw, unless that would take more than a third of the free memory. */
  encoding?: PackEncoding;
  /** Aligns a picture that is not side × side; undefined means that no face was found. Without it they are resized. */
  align?: (picture: Picture) => Promise<Picture | undefined>;
  onPicture?: (name: string, problem?: string) => void;
  signal?: AbortSignal;
}

const MAGIC = 'wfr-pack-1\n';
const MAX_INDEX = 512 * 1024 * 1024;

/** Opens the pack of a listing, making it anew when it is missing or its pictures have changed since. */
export async function ensurePack(listing: Listing, file: string, options: PackOptions = {}): Promise<Pack> {
  const side = options.side ?? 112;
  const rawBytes = listing.pictures.length * side * side * 3;
  const known = await openPack(file).catch(() => undefined);
  const encoding =
    options.encoding ?? known?.index.encoding ?? (rawBytes < freemem() / 3 ? 'raw' : 'compressed');
  const key = await keyOf(listing, side, encoding, options.align !== undefined);
  if (known?.index.key === key) return known;
  return writePack(listing, file, { ...options, side, encoding, key });
}

async function keyOf(
  { pictures }: Listing,
  side: number,
  encoding: PackEncoding,
  aligned: boolean,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([MAGIC, side, encoding, aligned]));
  for (const { file, name, identity } of pictures) {
    const info = await stat(file).catch(() => undefined);
    hash.update(JSON.stringify([name, identity ?? null, info?.size ?? -1, info?.mtimeMs ?? -1]));
  }
  return hash.digest('hex');
}

/** Pictures read and decoded at once. */
const AHEAD = 4;

async function writePack(
  { source, pictures }: Listing,
  file: string,
  options: PackOptions & { side: number; encoding: PackEncoding; key: string },
): Promise<Pack> {
  const { side, encoding, key } = options;
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  const out = await open(temporary, 'w');
  const index: PackIndex = {
    side,
    encoding,
    key,
    names: [],
    identities: [],
    rows: [],
    offsets: [MAGIC.length],
    listed: pictures.length,
    skipped: [],
  };
  try {
    await out.writeFile(MAGIC);
    const digest = createHash('sha256');
    const begun = new Map<number, Promise<Uint8Array | Error>>();
    const begin = (row: number) => {
      if (row >= pictures.length) return;
      const bytes = bytesOf(pictures[row].file, options);
      begun.set(
        row,
        bytes.catch((e: Error) => e),
      );
    };
    for (let row = 0; row < AHEAD; row++) begin(row);
    for (const [row, { name, identity }] of pictures.entries()) {
      options.signal?.throwIfAborted();
      const bytes = (await begun.get(row))!;
      begun.delete(row);
      begin(row + AHEAD);
      if (bytes instanceof Error) {
        if (!isPictureProblem(bytes)) throw bytes;
        index.skipped.push([name, bytes.message]);
        options.onPicture?.(name, bytes.message);
        continue;
      }
      await out.writeFile(bytes);
      digest.update(bytes);
      index.names.push(name);
      index.identities.push(identity ?? null);
      index.rows.push(row);
      index.offsets.push(index.offsets[index.offsets.length - 1] + bytes.length);
      options.onPicture?.(name);
    }
    if (index.names.length === 0) throw new WfrError(`${source}: none of its pictures can be used.`);
    index.digest = digest.digest('hex');
    await writeIndex(out, index);
    await out.sync();
    await out.close();
    await rename(temporary, file);
    return { file, index };
  } catch (error) {
    await out.close().catch(() => {});
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Whether an error is one of a single picture: with a lost device or missing weights no other would fare better. */
export const isPictureProblem = (error: unknown): error is Error =>
  error instanceof WfrError
    ? !(error instanceof GpuError || error instanceof WeightsError)
    : typeof (error as NodeJS.ErrnoException).syscall === 'string';

async function bytesOf(
  file: string,
  { side, encoding, align }: PackOptions & { side: number; encoding: PackEncoding },
): Promise<Uint8Array> {
  const original = await readPictureFile(file);
  let picture = await decodePicture(original);
  const isAligned = picture.width === side && picture.height === side;
  if (!isAligned) {
    const aligned = align ? await align(picture) : fitted(picture, side);
    if (!aligned) throw new WfrError('no face found');
    picture = aligned;
  }
  if (encoding === 'compressed') return isAligned ? original : encodePicture(picture, 'jpg');
  return toRgb(picture);
}

/** The middle square, resized: for pictures of faces that are not to be aligned. */
function fitted(picture: Picture, side: number): Picture {
  const length = Math.min(picture.width, picture.height);
  const [left, top] = [(picture.width - length) >> 1, (picture.height - length) >> 1];
  const square = new Float32Array(length * length * 3);
  for (let y = 0; y < length; y++)
    for (let x = 0; x < length; x++)
      for (let k = 0; k < 3; k++)
        square[(y * length + x) * 3 + k] = picture.data[((y + top) * picture.width + x + left) * 4 + k];
  const small = resize(square, length, side);
  const data = new Uint8ClampedArray(side * side * 4).fill(255);
  for (let i = 0; i < side * side; i++) for (let k = 0; k < 3; k++) data[i * 4 + k] = small[i * 3 + k];
  return { width: side, height: side, data };
}

export function toRgb({ width, height, data }: Picture): Uint8Array {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    rgb[i * 3] = data[i * 4];
    rgb[i * 3 + 1] = data[i * 4 + 1];
    rgb[i * 3 + 2] = data[i * 4 + 2];
  }
  return rgb;
}

async function writeIndex(out: FileHandle, index: PackIndex): Promise<void> {
  const json = Buffer.from(JSON.stringify(index));
  const footer = Buffer.alloc(16);
  footer.writeBigUInt64LE(BigInt(index.offsets[index.offsets.length - 1]), 0);
  footer.writeBigUInt64LE(BigInt(json.length), 8);
  await out.writeFile(json);
  await out.writeFile(footer);
}

/** @throws WfrError when the file is no pack or was cut short. */
export async function openPack(file: string): Promise<Pack> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const fail = (why: string) => new WfrError(`${file}: ${why}. Remove it, and it is made anew.`);
    const magic = Buffer.alloc(MAGIC.length);
    await handle.read(magic, 0, magic.length, 0);
    if (magic.toString('latin1') !== MAGIC || size < MAGIC.length + 16) throw fail('not a pack of pictures');
    const footer = Buffer.alloc(16);
    await handle.read(footer, 0, 16, size - 16);
    const [offset, length] = [Number(footer.readBigUInt64LE(0)), Number(footer.readBigUInt64LE(8))];
    if (length > MAX_INDEX || offset + length + 16 !== size) throw fail('its end is missing or damaged');
    const json = Buffer.alloc(length);
    await handle.read(json, 0, length, offset);
    const index = JSON.parse(json.toString('utf8')) as PackIndex;
    const { names, offsets, rows, identities } = index;
    const isOrdered = offsets.every((at, i) => Number.isSafeInteger(at) && (i === 0 || at > offsets[i - 1]));
    const fits = [rows, identities].every((list) => list.length === names.length);
    if (!isOrdered || !fits || offsets.length !== names.length + 1 || offsets[names.length] !== offset)
      throw fail('its index is damaged');
    return { file, index };
  } finally {
    await handle.close();
  }
}

/** Whether a file is a pack, by its first bytes. */
export async function isPack(file: string): Promise<boolean> {
  // A pipe is not to be waited for.
  if (!(await stat(file).catch(() => undefined))?.isFile()) return false;
  const handle = await open(file, 'r').catch(() => undefined);
  if (!handle) return false;
  try {
    const magic = Buffer.alloc(MAGIC.length);
    const { bytesRead } = await handle.read(magic, 0, magic.length, 0);
    return bytesRead === magic.length && magic.toString('latin1') === MAGIC;
  } catch {
    return false;
  } finally {
    await handle.close();
  }
}
