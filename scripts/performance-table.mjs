// node scripts/performance-table.mjs [--check] FILE.jsonl …
//
// Writes the table of engines in docs/performance.md, between its two markers, from the lines of
// `npm run bench -- --peers` (kept under bench/history). With --check nothing is written and the status says whether
// the table is what the files give.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const docs = path.join(import.meta.dirname, '..', 'docs', 'performance.md');
const BEGIN = '<!-- peers: written by scripts/performance-table.mjs -->';
const END = '<!-- /peers -->';

/**
 * @typedef {{ bench: string, net: string, engine: string, ms?: number, processor_ms?: number, first_ms?: number,
 *   cosine?: number, failed?: string }} Line
 * @param {string} text
 * @returns {Line[]}
 */
export const linesOf = (text) =>
  text
    .split('\n')
    .filter((l) => l.startsWith('{'))
    .map((l) => JSON.parse(l));

/** One row an engine, one group of columns a net. @param {Line[]} lines @returns {string} */
export function peersTable(lines) {
  const peers = lines.filter((l) => l.bench === 'peer');
  const nets = [...new Set(peers.map((l) => l.net))];
  const engines = [...new Set(peers.map((l) => l.engine))];
  const number = (/** @type {number | undefined} */ v) =>
    v === undefined ? '' : v >= 100 ? v.toFixed(0) : v.toFixed(1);
  const cell = (/** @type {string} */ engine, /** @type {string} */ net) => {
    const line = peers.findLast((l) => l.engine === engine && l.net === net);
    if (!line) return '';
    if (line.failed) return 'failed';
    return `${number(line.processor_ms)} (${number(line.ms)}; ${number((line.first_ms ?? 0) / 1000)} s)`;
  };
  return [
    `| engine | ${nets.join(' | ')} |`,
    `|---|${nets.map(() => '---').join('|')}|`,
    ...engines.map((e) => `| ${e} | ${nets.map((n) => cell(e, n)).join(' | ')} |`),
  ].join('\n');
}

if (process.argv[1] && path.resolve(process.argv[1]) === import.meta.filename) {
  const check = process.argv.includes('--check');
  const files = process.argv.slice(2).filter((a) => a !== '--check');
  if (files.length === 0) {
    console.error('Name one or more JSON-lines files of npm run bench -- --peers.');
    process.exit(1);
  }
  const table = peersTable(files.flatMap((f) => linesOf(readFileSync(f, 'utf8'))));
  const page = readFileSync(docs, 'utf8');
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) {
    console.error(`docs/performance.md lacks the markers ${BEGIN} and ${END}.`);
    process.exit(1);
  }
  const next = `${page.slice(0, from)}${BEGIN}\n\n${table}\n\n${page.slice(to)}`;
  if (check && next !== page) {
    console.error(
      'The table in docs/performance.md is not what these files give: run the script without --check.',
    );
    process.exit(1);
  }
  if (!check) writeFileSync(docs, next);
}
