// npx tsx bench/cold.ts [--builds dist,OTHER/dist] [--runs 5] [--warm 20] [--net mobilefacenet]
//
// Cold starts: from the start of a process to its first embedding of one face, with the driver's disk cache off
// ("cold") and filled ("cached"). Every run is a fresh process on a build of the library; several builds are taken in
// turn, run by run. Prints JSON lines of medians: milliseconds since the process began by which a stage was done, and
// the processor time that the process, driver included, had taken, which on a busy machine says more. `warm_ms` is the
// processor time of a later embedding.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { saveWeights } from '../src/weights/save.node.js';
import { NETS, weightsFor } from './nets.js';
import { benchArgs, countOf, fail, namesOf } from './options.js';
import { emit, median, round } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    builds: { type: 'string', default: path.join(import.meta.dirname, '..', 'dist') },
    net: { type: 'string', default: 'mobilefacenet' },
    runs: { type: 'string', default: '5' },
    warm: { type: 'string', default: '20' },
  },
});

const runs = countOf('runs', values.runs);
countOf('warm', values.warm);
namesOf('net', values.net, Object.keys(NETS));
const builds = values.builds.split(',');
for (const b of builds)
  if (!existsSync(path.join(b, 'index.node.js')))
    fail(`--builds ${b}: there is no build, npm run build makes one.`);

interface Start {
  marks: Record<string, { wall: number; processor: number }>;
  pipelines: number;
  warm: number;
  first: number[];
}

const folder = mkdtempSync(path.join(tmpdir(), 'wfr-bench-'));
const weights = path.join(folder, 'recogniser.safetensors');
const child = path.join(import.meta.dirname, 'cold_child.mjs');

function start(build: string, cache: 'cold' | 'cached'): Start {
  const env = {
    ...process.env,
    MESA_SHADER_CACHE_DIR: path.join(folder, 'cache'),
    MESA_SHADER_CACHE_DISABLE: String(cache === 'cold'),
  };
  const file = path.resolve(build, 'index.node.js');
  const ran = spawnSync(process.execPath, [child, file, weights, values.warm], { env, encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`${build} failed: ${ran.stderr}`);
  return JSON.parse(ran.stdout);
}

try {
  const [build, shape] = NETS[values.net];
  const [, height, width] = shape;
  const metadata = {
    net: values.net.replace(/^iresnet.*/, 'iresnet'),
    config: values.net.startsWith('iresnet') ? { depth: 50 } : {},
    input: { height, width },
    preprocessing: { mean: 127.5, scale: 1 / 127.5, order: 'rgb' as const },
  };
  await saveWeights(weights, { metadata, state: weightsFor(build(shape)) });
  const results = new Map<string, Start[]>();
  for (const b of builds) start(b, 'cached');
  for (let run = 0; run < runs; run++) {
    for (const cache of ['cold', 'cached'] as const) {
      for (const b of builds) {
        const key = `${b} ${cache}`;
        results.set(key, [...(results.get(key) ?? []), start(b, cache)]);
      }
    }
  }
  for (const [key, starts] of results) {
    const of = (f: (s: Start) => number) => round(median(starts.map(f)), 0);
    const stages = Object.keys(starts[0].marks);
    emit({
      bench: 'cold',
      net: values.net,
      build: path.relative(process.cwd(), key) || '.',
      wall_ms: Object.fromEntries(stages.map((s) => [s, of((r) => r.marks[s].wall)])),
      processor_ms: Object.fromEntries(stages.map((s) => [s, of((r) => r.marks[s].processor)])),
      pipelines: starts[0].pipelines,
      warm_ms: round(median(starts.map((r) => r.warm)), 1),
    });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
