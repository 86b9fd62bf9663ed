// `wfr lfw` as a library call: a list of pairs and a way to embed pictures → the protocol's numbers.
import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import { readPictureFile } from '../../media/files.node.js';
import { FaceError } from '../errors.js';
import { readBin } from './bin.js';
import type { EmbeddedPicture, NoFaceRule, SourcePicture, Treatment } from './embed.node.js';
import { listed, parsePairs } from './lists.js';
import { type ScoredPairs, squaredDistance } from './metrics.js';
import { contiguousFolds } from './protocol.js';

export interface TestPair {
  a: string;
  b: string;
  same: boolean;
  /** For messages: `line 12`, `pair 3`. */
  place: string;
}

/** What is to be compared. */
export interface TestSet {
  /** For reports. */
  name: string;
  pairs: TestPair[];
  folds: number[];
  pictures: SourcePicture[];
  /** Lines that were left out of the list. */
  problems: string[];
}

export interface TestSetOptions {
  /** Go on without malformed lines, missing pictures and the pairs that need them. */
  skipMissing?: boolean;
  /** Use the first so many folds only. */
  folds?: number;
  /** Use about so many pairs, spread evenly over the list. */
  limit?: number;
  /** What a message about a missing picture advises. By default --skip-missing, as `wfr lfw` has it. */
  advice?: string;
}

const DEFAULT_FOLDS = 10;

/**
 * Pairs from a list and a folder of pictures; of LFW's list the names `NAME_0001.jpg`, also with another ending
 * (.png, .webp, …) where the folder has that.
 * @throws FaceError naming the line for malformed lines and missing pictures.
 */
export async function testSetFromList(
  list: string,
  data: string,
  options: TestSetOptions = {},
): Promise<TestSet> {
  const name = path.basename(list);
  const parsed = parsePairs(await readFile(list, 'utf8'), { skipBad: options.skipMissing, name: list });
  const problems = parsed.problems.map((p) => `${name}, line ${p.line}: ${p.reason}`);
  const chosen = choose(
    parsed.pairs.map((p) => ({ a: p.a, b: p.b, same: p.same, place: `line ${p.line}` })),
    parsed.folds ?? contiguousFolds(parsed.pairs.length, Math.min(DEFAULT_FOLDS, parsed.pairs.length)),
    name,
    options,
  );
  const files = new Map<string, string | undefined>();
  for (const pair of chosen.pairs) {
    for (const id of [pair.a, pair.b]) {
      if (files.has(id)) continue;
      const file = await findPicture(data, id);
      files.set(id, file);
      if (file) continue;
      const reason = `${list}, ${pair.place}: there is no ${path.join(data, id)}`;
      if (!options.skipMissing)
        throw new FaceError(`${reason}. ${options.advice ?? 'To leave such pairs out, add --skip-missing.'}`);
      problems.push(reason);
    }
  }
  const pictures = [...files].flatMap(([id, file]) =>
    file ? [{ id, read: () => readPictureFile(file) }] : [],
  );
  if (pictures.length === 0)
    throw new FaceError(`None of the pictures that ${list} names is in ${data}.${listed(problems)}`);
  return { name, ...chosen, pictures, problems };
}

/** An InsightFace pack: pictures and labels in one file, ten contiguous folds. */
export async function testSetFromBin(file: string, options: TestSetOptions = {}): Promise<TestSet> {
  const pack = readBin(await readFile(file), file);
  const id = (i: number) => `picture ${i + 1}`;
  const pairs = pack.same.map((same, i) => ({
    a: id(2 * i),
    b: id(2 * i + 1),
    same,
    place: `pair ${i + 1}`,
  }));
  const folds = contiguousFolds(pairs.length, Math.min(DEFAULT_FOLDS, pairs.length));
  const chosen = choose(pairs, folds, path.basename(file), options);
  const needed = new Set(chosen.pairs.flatMap((p) => [p.a, p.b]));
  const pictures = pack.pictures.flatMap((bytes, i) =>
    needed.has(id(i)) ? [{ id: id(i), read: () => Promise.resolve(bytes) }] : [],
  );
  return { name: path.basename(file), ...chosen, pictures, problems: [] };
}

async function findPicture(data: string, id: string): Promise<string | undefined> {
  const file = path.join(data, id);
  const base = file.slice(0, file.length - path.extname(file).length);
  for (const candidate of [file, ...['.jpg', '.png', '.jpeg', '.webp'].map((ext) => base + ext)]) {
    const found = await access(candidate).then(
      () => true,
      () => false,
    );
    if (found) return candidate;
  }
  return undefined;
}

/**
 * Before the long part: pairs of different people whose pictures are there.
 * @throws FaceError, with what was skipped, when fewer than two folds have pairs left.
 */
export function requireTwoFolds({ name, pairs, folds, pictures, problems }: TestSet): { different: number } {
  const present = new Set(pictures.map((p) => p.id));
  const usable = (pair: TestPair) => present.has(pair.a) && present.has(pair.b);
  let start = 0;
  const filled = folds.filter((size) => {
    start += size;
    return pairs.slice(start - size, start).some(usable);
  });
  const left = pairs.filter(usable);
  if (filled.length < 2) {
    throw new FaceError(
      `${name}: too few pairs remain (${left.length}, in ${filled.length} of ${folds.length} folds). The protocol needs at least two folds with pairs: the threshold for one is chosen on the others.${listed(problems)}`,
    );
  }
  return { different: left.filter((pair) => !pair.same).length };
}

/** The first folds, and of each fold an even selection of about `limit` pairs in all. */
function choose(
  pairs: readonly TestPair[],
  folds: readonly number[],
  name: string,
  { folds: wanted, limit }: TestSetOptions,
): { pairs: TestPair[]; folds: number[] } {
  if (wanted !== undefined && wanted > folds.length)
    throw new FaceError(
      `The first ${wanted} folds were asked for (--folds), but ${name} has ${folds.length}.`,
    );
  const kept = folds.slice(0, wanted ?? folds.length);
  const total = kept.reduce((a, b) => a + b, 0);
  const share = limit === undefined ? 1 : Math.min(1, limit / total);
  const out: TestPair[] = [];
  const sizes: number[] = [];
  let start = 0;
  for (const size of kept) {
    const count = Math.max(1, Math.round(size * share));
    for (let i = 0; i < count; i++) out.push(pairs[start + Math.floor(((i + 0.5) * size) / count)]);
    sizes.push(count);
    start += size;
  }
  return { pairs: out, folds: sizes };
}

export interface ScoredSet extends ScoredPairs {
  distances: Float64Array;
  same: boolean[];
  /** The pairs that were scored, in order, with the folds they fill. */
  pairs: TestPair[];
  folds: number[];
  /** Pairs left out because a picture could not be used. */
  excluded: TestPair[];
  /** Pictures by treatment other than the usual, for the report. */
  treated: Record<Treatment, string[]>;
}

/** Squared distance of the farthest unit vectors: what a pair gets that counts as different for want of a face. */
const FARTHEST = 4;

/** Distances of all pairs. A pair with a picture without embedding counts as different or is left out. */
export function scorePairs(
  set: Pick<TestSet, 'pairs' | 'folds'>,
  embedded: ReadonlyMap<string, EmbeddedPicture>,
  noFace: NoFaceRule,
): ScoredSet {
  const treated: ScoredSet['treated'] = { detected: [], given: [], aligned: [], centre: [], none: [] };
  for (const [id, { treatment }] of embedded) treated[treatment].push(id);
  const distances: number[] = [];
  const pairs: TestPair[] = [];
  const excluded: TestPair[] = [];
  const folds: number[] = [];
  let start = 0;
  for (const size of set.folds) {
    const before = pairs.length;
    for (const pair of set.pairs.slice(start, start + size)) {
      const [a, b] = [embedded.get(pair.a), embedded.get(pair.b)];
      const broken = !a || !b || a.problem !== undefined || b.problem !== undefined;
      const faceless = !a?.embedding || !b?.embedding;
      if (broken || (faceless && noFace === 'exclude')) {
        excluded.push(pair);
        continue;
      }
      distances.push(faceless ? FARTHEST : squaredDistance(a.embedding!, b.embedding!));
      pairs.push(pair);
    }
    if (pairs.length > before) folds.push(pairs.length - before);
    start += size;
  }
  return {
    distances: Float64Array.from(distances),
    same: pairs.map((p) => p.same),
    pairs,
    folds,
    excluded,
    treated,
  };
}
