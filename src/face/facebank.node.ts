import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { decodePicture, readPicture } from '../media/decode.node.js';
import { MediaError } from '../media/errors.js';
import { isPictureName, PICTURE_EXTENSIONS, readPictureFile, writeAtomically } from '../media/files.node.js';
import { FaceError } from './errors.js';
import { Facebank } from './facebank.js';
import { type FaceRecognizer, mainFace } from './recognizer.js';

/**
 * A facebank on disk: a folder for each person, named after them, holding their pictures. Embeddings are cached
 * in `.wfr-bank.json` inside it, keyed by the picture's bytes and the weights, so that a new picture costs one
 * embedding and other weights start afresh.
 */
const CACHE_NAME = '.wfr-bank.json';

const WHAT_A_BANK_IS = 'A facebank is a folder with a folder of pictures for each person';

/** What became of one picture of a bank. */
export interface BankPicture {
  name: string;
  picture: string;
  /** Faces found; with several, the main one was taken. */
  faces: number;
  /** Why the picture has no embedding. */
  problem?: string;
}

export interface LoadedBank {
  bank: Facebank;
  pictures: BankPicture[];
  /** Embeddings that had to be computed; the others came from the cache. */
  embedded: number;
}

interface CacheEntry {
  faces: number;
  embedding?: string;
  problem?: string;
}

type Cache = Record<string, CacheEntry>;

export interface BankOptions {
  /** SHA-256 of the weights in use (detector and recogniser). */
  weightsHash: string;
  /** Called after each picture. */
  onPicture?: (done: number, total: number, picture: BankPicture) => void;
  signal?: AbortSignal;
}

/** Opens the recogniser only when some picture is not in the cache. */
export type LazyRecognizer = () => Promise<FaceRecognizer>;

/**
 * Reads a bank, embedding what is new. Pictures that cannot be read or show no face are reported, not fatal.
 * @throws FaceError when the folder is missing or holds no people.
 */
export async function loadBank(
  folder: string,
  recognizer: LazyRecognizer,
  options: BankOptions,
): Promise<LoadedBank> {
  const files = await listBank(folder);
  const cache = await readCache(folder);
  const fresh: Cache = {};
  const bank = new Facebank();
  const pictures: BankPicture[] = [];
  let embedded = 0;
  try {
    for (const [i, { name, picture }] of files.entries()) {
      options.signal?.throwIfAborted();
      const bytes = await readPictureFile(path.join(folder, picture)).catch((error: unknown) => {
        if (error instanceof MediaError) return error;
        throw error;
      });
      if (bytes instanceof MediaError) {
        pictures.push({ name, picture, faces: 0, problem: bytes.message });
        options.onPicture?.(i + 1, files.length, pictures[i]);
        continue;
      }
      const key = createHash('sha256').update(bytes).update(options.weightsHash).digest('hex');
      let entry: CacheEntry | undefined = cache[key];
      if (!entry) {
        entry = await embedPicture(bytes, recognizer);
        embedded++;
      }
      fresh[key] = entry;
      if (entry.embedding) bank.add({ name, picture, embedding: fromBase64(entry.embedding) });
      pictures.push({ name, picture, faces: entry.faces, problem: entry.problem });
      options.onPicture?.(i + 1, files.length, pictures[i]);
    }
  } finally {
    // Also when interrupted: what was embedded is kept.
    if (embedded > 0)
      await writeAtomically(path.join(folder, CACHE_NAME), JSON.stringify({ ...cache, ...fresh }));
  }
  return { bank, pictures, embedded };
}

/** People and their pictures, in natural order. */
export async function listBank(folder: string): Promise<{ name: string; picture: string }[]> {
  if (!existsSync(folder))
    throw new FaceError(`${folder}: no such facebank. ${WHAT_A_BANK_IS}; wfr bank add makes one.`);
  requireFolder(folder);
  const order = new Intl.Collator('en', { numeric: true }).compare;
  const files: { name: string; picture: string }[] = [];
  const people = (await readdir(folder, { withFileTypes: true })).filter(
    (e) => e.isDirectory() && !e.name.startsWith('.'),
  );
  for (const person of people.sort((a, b) => order(a.name, b.name))) {
    const names = (await readdir(path.join(folder, person.name))).filter(isPictureName).sort(order);
    for (const picture of names)
      files.push({ name: person.name.normalize('NFC'), picture: path.join(person.name, picture) });
  }
  if (files.length === 0) throw new FaceError(`${folder} holds no folder with pictures. ${WHAT_A_BANK_IS}.`);
  return files;
}

/**
 * Copies pictures into a person's folder; a name that is taken gets a number.
 * @throws FaceError or MediaError before anything is written, when the name or one of the pictures will not do.
 */
export async function addToBank(
  folder: string,
  name: string,
  pictures: readonly string[],
): Promise<string[]> {
  if (/[/\\]|^\.|^$/.test(name))
    throw new FaceError(
      `“${name}” cannot be a person's name: it becomes a folder's name, so no slashes and no dot in front.`,
    );
  for (const picture of pictures) {
    if (!isPictureName(picture))
      throw new FaceError(`${picture}: a bank reads files that end in ${PICTURE_EXTENSIONS.join(', ')}.`);
    await readPicture(picture);
  }
  if (existsSync(folder)) requireFolder(folder);
  const target = path.join(folder, name);
  await mkdir(target, { recursive: true });
  const added: string[] = [];
  for (const picture of pictures) {
    const { name: base, ext } = path.parse(picture);
    let file = path.join(target, base + ext);
    for (let n = 2; existsSync(file); n++) file = path.join(target, `${base} (${n})${ext}`);
    await writeAtomically(file, await readFile(picture));
    added.push(file);
  }
  return added;
}

function requireFolder(folder: string): void {
  if (!statSync(folder).isDirectory()) throw new FaceError(`${folder} is a file. ${WHAT_A_BANK_IS}.`);
}

async function embedPicture(bytes: Uint8Array, recognizer: LazyRecognizer): Promise<CacheEntry> {
  let picture: Awaited<ReturnType<typeof decodePicture>>;
  try {
    picture = await decodePicture(bytes);
  } catch (error) {
    return { faces: 0, problem: (error as Error).message };
  }
  const faces = await (await recognizer()).recognize(picture);
  const main = mainFace(faces, picture.width, picture.height);
  return main
    ? { faces: faces.length, embedding: toBase64(main.embedding) }
    : { faces: 0, problem: 'no face found' };
}

async function readCache(folder: string): Promise<Cache> {
  try {
    return JSON.parse(await readFile(path.join(folder, CACHE_NAME), 'utf8')) as Cache;
  } catch {
    return {}; // None yet, or damaged: it is only a cache.
  }
}

const toBase64 = (v: Float32Array): string =>
  Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString('base64');

function fromBase64(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
