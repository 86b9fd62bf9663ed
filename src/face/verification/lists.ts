/** Lists of verification pairs: LFW's pairs.txt and plain `path path 0|1` lines. Every error names the line. */
import { FaceError } from '../errors.js';

export interface Pair {
  /** Paths below the data folder, with `/`. */
  a: string;
  b: string;
  same: boolean;
  /** Line in the list, from 1. */
  line: number;
}

export interface PairList {
  pairs: Pair[];
  /** Pairs in each fold, in file order; undefined where the list knows no folds. */
  folds?: number[];
  /** Lines that were left out, when told to go on. */
  problems: { line: number; reason: string }[];
}

export interface ListOptions {
  /** Leave malformed lines out and list them instead of stopping at the first. */
  skipBad?: boolean;
  /** Name of the list in messages. */
  name?: string;
}

const MAX_BYTES = 64 * 1024 * 1024;
const MAX_PAIRS = 2_000_000;

/**
 * Reads either kind of list; a first line of one or two whole numbers makes it LFW's.
 *
 * LFW's: `folds  n`, then for each fold n lines `NAME i j` (same) and n lines `NAME i OTHER j` (different); a first
 * line with one number n (LFW's view 1, pairsDevTest.txt) is one fold. Fields are parted by tabs, or by blanks where
 * a line has no tab.
 *
 * Plain: `path path 1|0` (also `path,path,1`), parted by tabs, else commas, else blanks.
 *
 * @throws FaceError for malformed lines and wrong counts, naming the line.
 */
export function parsePairs(text: string, options: ListOptions = {}): PairList {
  const name = options.name ?? 'the list of pairs';
  if (text.length > MAX_BYTES)
    throw new FaceError(`${name} is larger than 64 MiB: this is no list of pairs.`);
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const first = lines.findIndex((l) => l.trim() !== '');
  if (first < 0) throw new FaceError(`${name} is empty.`);
  const header = /^\s*(\d+)(?:\s+(\d+))?\s*$/.exec(lines[first]);
  const collector = new Collector(name, options.skipBad ?? false);
  if (header) return collector.filled(parseLfw(lines, first, header, collector));
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    collector.add(i + 1, () => parsePlain(line, i + 1));
  }
  return collector.filled(collector.list);
}

/** What was skipped, for the end of a message: the first twenty, a line each. */
export function listed(problems: readonly string[]): string {
  if (problems.length === 0) return '';
  const more = problems.length > 20 ? [`… and ${problems.length - 20} more`] : [];
  return [' Skipped:', ...problems.slice(0, 20), ...more].join('\n  ');
}

class Collector {
  readonly list: PairList = { pairs: [], problems: [] };
  constructor(
    private readonly name: string,
    private readonly skipBad: boolean,
  ) {}

  add(line: number, parse: () => Pair | string): boolean {
    const result = parse();
    if (typeof result !== 'string') {
      if (this.list.pairs.length >= MAX_PAIRS)
        throw new FaceError(`${this.name}: more than ${MAX_PAIRS} pairs.`);
      this.list.pairs.push(result);
      return true;
    }
    this.problem(line, result);
    return false;
  }

  filled(list: PairList): PairList {
    if (list.pairs.length > 0) return list;
    const skipped = this.list.problems.map((p) => `line ${p.line}: ${p.reason}`);
    if (skipped.length === 0) throw new FaceError(`${this.name} holds no pairs.`);
    throw new FaceError(`${this.name}: too few pairs remain: none.${listed(skipped)}`);
  }

  problem(line: number, reason: string): void {
    if (!this.skipBad) throw new FaceError(`${this.name}, line ${line}: ${reason}`);
    this.list.problems.push({ line, reason });
  }
}

function parseLfw(
  lines: readonly string[],
  first: number,
  header: RegExpExecArray,
  collector: Collector,
): PairList {
  const folds = header[2] === undefined ? 1 : Number(header[1]);
  const half = Number(header[2] ?? header[1]);
  if (folds < 1 || half < 1 || folds * half * 2 > MAX_PAIRS) {
    collector.problem(first + 1, `${folds} folds of 2·${half} pairs is not a usable size`);
  }
  const sizes = new Array<number>(folds).fill(0);
  const expected = folds * half * 2;
  let seen = 0;
  for (let i = first + 1; i < lines.length; i++) {
    if (lines[i].trim() === '') continue;
    const place = seen++;
    if (place >= expected) continue;
    const wantsSame = place % (2 * half) < half;
    if (collector.add(i + 1, () => parseLfwLine(lines[i], i + 1, wantsSame)))
      sizes[Math.floor(place / (2 * half))]++;
  }
  if (seen !== expected) {
    collector.problem(
      first + 1,
      `the header announces ${folds} × (${half} same + ${half} different) = ${expected} pairs, but ${seen} lines follow`,
    );
  }
  const filled = sizes.filter((size) => size > 0);
  return { ...collector.list, folds: filled };
}

function parseLfwLine(line: string, number: number, wantsSame: boolean): Pair | string {
  const fields = (line.includes('\t') ? line.split('\t') : line.split(/\s+/))
    .map((f) => f.trim())
    .filter(Boolean);
  if (fields.length !== 3 && fields.length !== 4) {
    return `"${shorten(line)}" has ${fields.length} fields; \`NAME i j\` or \`NAME i OTHER j\` was expected`;
  }
  const same = fields.length === 3;
  if (same !== wantsSame) {
    return `a pair of ${same ? 'one person' : 'different people'} where one of ${wantsSame ? 'one person' : 'different people'} was expected: the counts in the first line are wrong, or a line is missing`;
  }
  const [nameA, i] = fields;
  const nameB = same ? nameA : fields[2];
  const j = fields[fields.length - 1];
  for (const index of [i, j]) if (!/^\d{1,6}$/.test(index)) return `"${shorten(index)}" is no picture number`;
  for (const name of [nameA, nameB]) if (!isSafe(name)) return `"${shorten(name)}" is no folder name`;
  const file = (name: string, index: string) => `${name}/${name}_${index.padStart(4, '0')}.jpg`;
  return { a: file(nameA, i), b: file(nameB, j), same, line: number };
}

function parsePlain(line: string, number: number): Pair | string {
  const fields = split(line);
  if (fields.length !== 3) {
    return `"${shorten(line)}" has ${fields.length} fields; \`path path 0|1\` was expected (tabs or commas allow blanks in paths)`;
  }
  const [a, b, label] = fields;
  if (!/^(0|1|true|false)$/i.test(label))
    return `the third field is "${shorten(label)}"; 1 (same) or 0 (different) was expected`;
  for (const p of [a, b]) if (!isSafe(p)) return `"${shorten(p)}" leaves the data folder`;
  return {
    a: a.replaceAll('\\', '/'),
    b: b.replaceAll('\\', '/'),
    same: /^(1|true)$/i.test(label),
    line: number,
  };
}

function split(line: string): string[] {
  const separator = line.includes('\t') ? /\t+/ : line.includes(',') ? /\s*,\s*/ : /\s+/;
  return line.trim().split(separator);
}

/** Pictures lie below the data folder: a list from elsewhere must not name other files of this machine. */
const isSafe = (path: string): boolean =>
  path !== '' &&
  !/^([a-z]:)?[\\/]/i.test(path) &&
  !path.split(/[\\/]/).includes('..') &&
  !path.includes('\0');

const shorten = (text: string): string => (text.length > 80 ? `${text.slice(0, 77)}…` : text);

/**
 * Five points of the main face for each file: a CSV whose first line names the columns `file, x1, y1, x2, y2, score,
 * lex, ley, rex, rey, nx, ny, lmx, lmy, rmx, rmy` (box and score may be absent).
 * @throws FaceError for missing columns or lines that are no numbers.
 */
export function parseLandmarks(text: string, options: ListOptions = {}): Map<string, [number, number][]> {
  const name = options.name ?? 'the file of landmarks';
  if (text.length > 4 * MAX_BYTES) throw new FaceError(`${name} is larger than 256 MiB.`);
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const columns = lines[0].split(',').map((c) => c.trim().toLowerCase());
  const wanted = ['lex', 'ley', 'rex', 'rey', 'nx', 'ny', 'lmx', 'lmy', 'rmx', 'rmy'];
  const places = wanted.map((c) => columns.indexOf(c));
  const fileColumn = columns.indexOf('file');
  const missing = ['file', ...wanted].filter((c) => !columns.includes(c));
  if (missing.length > 0) throw new FaceError(`${name}, line 1: no column ${missing.join(', ')}.`);
  const points = new Map<string, [number, number][]>();
  for (let i = 1; i < lines.length; i++) {
    if (lines[i].trim() === '') continue;
    const fields = lines[i].split(',');
    const values = places.map((p) => (fields[p]?.trim() ? Number(fields[p]) : Number.NaN));
    if (!fields[fileColumn] || values.some((v) => !Number.isFinite(v))) {
      if (options.skipBad) continue;
      throw new FaceError(
        `${name}, line ${i + 1}: "${shorten(lines[i])}" does not give ten numbers for a file.`,
      );
    }
    points.set(
      fields[fileColumn].trim(),
      Array.from({ length: 5 }, (_, k) => [values[2 * k], values[2 * k + 1]]),
    );
  }
  return points;
}
