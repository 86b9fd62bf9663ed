/** Command lines of the benches: help from the comment that a file begins with, and errors without a stack. */
import { readFileSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Ends the process with a message on standard error. */
export function fail(message: string): never {
  console.error(message);
  process.exit(2);
}

/** The comment at the top of a file; nothing where a build has dropped it. */
function usageOf(file: string): string {
  const lines = readFileSync(file, 'utf8').split('\n');
  const end = lines.findIndex((l) => !l.startsWith('//'));
  return lines
    .slice(0, end)
    .map((l) => l.replace(/^\/\/ ?/, ''))
    .join('\n');
}

/**
 * `parseArgs`, with --help.
 * @param file the bench's own, `import.meta.filename`.
 */
export function benchArgs<T extends ParseArgsConfig>(
  file: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  if (process.argv.includes('--help') || process.argv.includes('-h')) {
    console.log(usageOf(file) || `Options: --${Object.keys(config.options ?? {}).join(', --')}`);
    process.exit(0);
  }
  try {
    return parseArgs(config);
  } catch (error) {
    return fail(`${(error as Error).message}\n--help says what there is.`);
  }
}

/** A whole number of at least 1, or the process ends. */
export function countOf(option: string, text: string): number {
  const n = Number(text);
  return Number.isSafeInteger(n) && n >= 1
    ? n
    : fail(`--${option} ${text}: give a whole number of at least 1.`);
}

/** A number above 0, or the process ends. */
export function above0(option: string, text: string): number {
  const n = Number(text);
  return n > 0 && Number.isFinite(n) ? n : fail(`--${option} ${text}: give a number above 0.`);
}

/** The names of a list that are among those known; the process ends where one is not. */
export function namesOf(option: string, text: string, known: readonly string[]): string[] {
  const names = text.split(',');
  const wrong = names.find((n) => !known.includes(n));
  return wrong === undefined ? names : fail(`--${option} ${wrong}: choose from ${known.join(', ')}.`);
}

/** Storage of maps, `f32` where nothing is said. */
export function precisionOf(text = 'f32'): 'f32' | 'f16' {
  return text === 'f32' || text === 'f16' ? text : fail(`--precision ${text}: f32 or f16.`);
}

/** Engines whose names begin with one of those wanted, all where none is named; the process ends where one has no engine. */
export function enginesOf(wanted: readonly string[] | undefined, known: readonly string[]): string[] {
  const wrong = wanted?.find((w) => w === '' || !known.some((e) => e.startsWith(w)));
  if (wrong !== undefined) return fail(`--engines ${wrong}: choose from ${known.join(', ')}.`);
  return known.filter((e) => !wanted || wanted.some((w) => e.startsWith(w)));
}
