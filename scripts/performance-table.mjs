// node scripts/performance-table.mjs [--check] FILE.jsonl …
//
// Writes the tables of docs/performance.md, each between its two markers: that of engines from the lines of
// `npm run bench -- --peers`, that of kernels from those of `npm run bench`, those of growth from bench/grow.ts (kept under
// bench/history). A table that the files have no lines for stays as it is. With --check nothing is written and the status says whether the tables are
// what the files give.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

const docs = path.join(import.meta.dirname, '..', 'docs', 'performance.md');

/**
 * @typedef {{ bench: string, net: string, engine: string, ms?: number, processor_ms?: number, first_ms?: number,
 *   cosine?: number, failed?: string, kernel?: string, calls?: number, gflops?: number | null, gbytes?: number | null,
 *   share_of_roof?: number | null, grows?: string, size?: number | string }} Line
 * @param {string} text
 * @returns {Line[]}
 */
export const linesOf = (text) =>
  text
    .split('\n')
    .filter((l) => l.startsWith('{'))
    .map((l) => {
      try {
        return JSON.parse(l);
      } catch {
        throw new Error(`half a line: ${l.slice(0, 60)}`);
      }
    });

const number = (/** @type {number | null | undefined} */ v) =>
  v === undefined || v === null ? '' : v >= 100 ? v.toFixed(0) : v.toFixed(1);

/** One row an engine, one group of columns a net. @param {Line[]} lines @returns {string} */
export function peersTable(lines) {
  const peers = lines.filter((l) => l.bench === 'peer');
  const nets = [...new Set(peers.map((l) => l.net))];
  const engines = [...new Set(peers.map((l) => l.engine))];
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

/** Share of a net's time below which a kernel is left out. */
const LEAST = 0.03;

/** One row a kind of kernel and net, longest first. @param {Line[]} lines @returns {string} */
export function kernelsTable(lines) {
  const kernels = lines.filter((l) => l.bench === 'kernel');
  const rows = [...new Set(kernels.map((l) => l.net))].flatMap((net) => {
    const own = kernels.filter((l) => l.net === net);
    const total = own.reduce((sum, l) => sum + (l.ms ?? 0), 0);
    return own
      .filter((l) => (l.ms ?? 0) >= LEAST * total)
      .map((l) => {
        const share = l.share_of_roof == null ? '' : `${(100 * l.share_of_roof).toFixed(0)} %`;
        return `| ${net} | ${l.kernel} | ${l.calls} | ${number(l.ms)} | ${number(l.gflops)} | ${number(l.gbytes)} | ${share} |`;
      });
  });
  return [
    '| net | kernel | calls | ms | GFLOP/s | GB/s | of the roof |',
    '|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}

/** A table a kind of growth: the sizes across, milliseconds, and what else a line says. @param {Line[]} lines @returns {string} */
export function growthTable(lines) {
  const grown = lines.filter((l) => l.bench === 'grow');
  return [...new Set(grown.map((l) => l.grows))]
    .map((grows) => {
      const own = grown.filter((l) => l.grows === grows);
      const known = new Set(['bench', 'grows', 'size', 'ms']);
      const more = Object.keys(own[0]).filter((k) => !known.has(k));
      const cell = (/** @type {string | number | null | undefined} */ v) =>
        typeof v === 'number' && v < 1 ? v : typeof v === 'number' && !Number.isInteger(v) ? number(v) : v;
      const row = (/** @type {string} */ name, /** @type {keyof Line} */ key) =>
        `| ${name} | ${own.map((l) => cell(l[key])).join(' | ')} |`;
      return [
        row(`**${grows}**`, 'size'),
        `|---|${own.map(() => '---').join('|')}|`,
        row('ms', 'ms'),
        ...more.map((k) =>
          row(k.replace(/_mb$/, ', MB').replaceAll('_', ' '), /** @type {keyof Line} */ (k)),
        ),
      ].join('\n');
    })
    .join('\n\n');
}

const TABLES = [
  { name: 'growth', bench: 'grow', table: growthTable },
  { name: 'peers', bench: 'peer', table: peersTable },
  { name: 'kernels', bench: 'kernel', table: kernelsTable },
];

/** The page with the tables that there are lines for. @param {string} page @param {Line[]} lines @returns {string} */
export function withTables(page, lines) {
  for (const { name, bench, table } of TABLES) {
    if (!lines.some((l) => l.bench === bench)) continue;
    const [begin, end] = [`<!-- ${name}: written by scripts/performance-table.mjs -->`, `<!-- /${name} -->`];
    const [from, to] = [page.indexOf(begin), page.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`docs/performance.md lacks the markers ${begin} and ${end}.`);
    page = `${page.slice(0, from)}${begin}\n\n${table(lines)}\n\n${page.slice(to)}`;
  }
  return page;
}

/** What the command line asks for. @param {string[]} args */
function main(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { check: { type: 'boolean', default: false } },
  });
  if (positionals.length === 0)
    throw new Error('Name one or more files of JSON lines, as the benches print them.');
  const page = readFileSync(docs, 'utf8');
  const lines = positionals.flatMap((f) => linesOf(readFileSync(f, 'utf8')));
  if (!TABLES.some(({ bench }) => lines.some((l) => l.bench === bench)))
    throw new Error(`${positionals.join(', ')}: no line is of a table.`);
  const next = withTables(page, lines);
  if (!values.check) writeFileSync(docs, next);
  else if (next !== page)
    throw new Error(
      'The tables in docs/performance.md are not what these files give: run the script without --check.',
    );
}

if (process.argv[1] && path.resolve(process.argv[1]) === import.meta.filename) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(/** @type {Error} */ (error).message);
    process.exit(1);
  }
}
