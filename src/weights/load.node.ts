import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Weights } from './convert.js';
import { WeightsError } from './errors.js';
import { readWeights } from './read.js';

/** What the weights are for; each is looked up on its own. */
export type Role = 'detector' | 'recogniser';

export interface LoadedWeights extends Weights {
  /** Files they were read from. */
  files: string[];
  /** Where they were found: option, WFR_WEIGHTS, cache or project. */
  place: string;
  /** SHA-256 of the files' bytes, for cache keys. */
  hash: string;
}

const EXTENSIONS = ['.safetensors', '.pt', '.pth', '.ckpt', '.npy', '.params'];
const NETS: Record<Role, readonly string[]> = {
  detector: ['mtcnn'],
  recogniser: ['mobilefacenet', 'iresnet'],
};

/** Folder for downloaded weights: WFR_CACHE, else the platform's usual place. */
export function cacheFolder(): string {
  if (process.env.WFR_CACHE) return process.env.WFR_CACHE;
  if (process.platform === 'win32' && process.env.LOCALAPPDATA)
    return path.join(process.env.LOCALAPPDATA, 'wfr');
  if (process.platform === 'darwin') return path.join(homedir(), 'Library', 'Caches', 'wfr');
  return path.join(process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'wfr');
}

/** The package's own `weights/`, which ships with it. */
export function projectFolder(): string {
  return path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', 'weights');
}

/**
 * Finds weights: the given path, then WFR_WEIGHTS (both a file or a folder, searched with its subfolders),
 * the cache of pulled weights, the project's `weights/`.
 * @param net which recogniser to prefer where a folder holds several (`mobilefacenet`, `iresnet`, or a part of a file's path).
 * @param option what gave the path, for messages
 * @throws WeightsError saying where it looked and what to do.
 */
export async function loadWeights(
  role: Role,
  options: { path?: string; net?: string; option?: string } = {},
): Promise<LoadedWeights> {
  const { option = '--weights' } = options;
  const places: [string, string | undefined][] = options.path
    ? [[option, options.path]]
    : [
        ['WFR_WEIGHTS', process.env.WFR_WEIGHTS],
        // Someone who pulled weights wants them rather than those that ship.
        ['the cache', cacheFolder()],
        ['the project', projectFolder()],
      ];
  const looked: string[] = [];
  for (const [place, location] of places) {
    if (!location) continue;
    if (!existsSync(location)) {
      if (place === option || place === 'WFR_WEIGHTS')
        throw new WeightsError(`${place} names ${location}, which does not exist.`);
      continue;
    }
    looked.push(`${location} (${place})`);
    for (const files of await candidates(location)) {
      // A file that was named must be readable; in a folder, what is no weights is passed over.
      const isNamed = place === option && files.includes(location);
      const found = await tryLoad(role, files, place, isNamed, options.net);
      if (found) return found;
    }
  }
  const wanted = options.net ? `${role} weights of net ${options.net}` : `${role} weights`;
  if (option !== '--weights')
    throw new WeightsError(
      `${option} names ${options.path}, which holds no ${wanted}: give a file of a ${role} (${NETS[role].join(' or ')}), or a folder that holds one.`,
    );
  throw new WeightsError(
    `No ${wanted} found${looked.length > 0 ? `; looked in ${looked.join(', ')}` : ''}. Give a file or folder with --weights or WFR_WEIGHTS, or download some: wfr weights list shows what there is, wfr weights pull NAME fetches it.`,
  );
}

/** Groups of files that may be one net: single files, and the trios of an MTCNN in one folder. */
async function candidates(location: string): Promise<string[][]> {
  if ((await stat(location)).isFile()) return [await withSiblings(location)];
  const groups: string[][] = [];
  const entries = (await readdir(location, { withFileTypes: true })).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  const files = entries
    .filter((e) => e.isFile() && EXTENSIONS.includes(path.extname(e.name).toLowerCase()))
    .map((e) => path.join(location, e.name));
  const trio = files.filter((f) => /^[pro]net\./i.test(path.basename(f)));
  if (trio.length === 3) groups.push(trio);
  for (const f of files) if (!(trio.length === 3 && trio.includes(f))) groups.push([f]);
  for (const e of entries)
    if (e.isDirectory()) groups.push(...(await candidates(path.join(location, e.name))));
  return groups;
}

/** One of pnet, rnet, onet stands for all three. */
async function withSiblings(file: string): Promise<string[]> {
  const name = path.basename(file);
  if (!/^[pro]net\./i.test(name)) return [file];
  const trio = ['p', 'r', 'o'].map((letter) => path.join(path.dirname(file), letter + name.slice(1)));
  return trio.every((f) => existsSync(f)) ? trio : [file];
}

async function tryLoad(
  role: Role,
  files: string[],
  place: string,
  isNamed: boolean,
  net?: string,
): Promise<LoadedWeights | undefined> {
  // Reading a file of the other role only to drop it is wasteful: the trio is always a detector.
  if (files.length === 3 && role !== 'detector') return undefined;
  try {
    const bytes = await Promise.all(files.map((f) => readFile(f)));
    const weights = readWeights(bytes);
    if (!NETS[role].includes(weights.metadata.net)) return undefined;
    if (net && weights.metadata.net !== net && !files[0].includes(net)) return undefined;
    const hash = createHash('sha256');
    for (const b of bytes) hash.update(b);
    return { ...weights, files, place, hash: hash.digest('hex') };
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    if (isNamed) throw new WeightsError(`${files[0]}: ${error.message}`);
    return undefined;
  }
}
