// npm run bench [-- --only mobilefacenet,annotate] [--runs 9] [--precision f16]
// npm run bench -- --peers [--only …] [--engines wfr,tfjs] [--runs 5]   other engines beside it: peers.ts
// npm run bench -- --peers --train [--only …] [--batch 16] [--runs 3]    their training steps: peers_train.ts
//
// One JSON line a measurement, on standard output: each net (milliseconds, GFLOP/s, first run with what the driver
// compiles, peak GPU memory) and each kind of kernel beside the device's own rates of multiply-adds and of a copy, measured in
// the same run, and annotating a picture end to end, stage by stage, with the weights that wfr finds. Random weights do as well as trained ones for
// the nets.
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { GpuPicture } from '../src/face/gpu_picture.js';
import { type Gpu, openGpu } from '../src/gpu/gpu.js';
import { profileProgram } from '../src/gpu/profile.js';
import { Model } from '../src/graph/model.js';
import { measureCopyRate, measureFmaRate } from '../src/kernels/probe/measure.js';
import { renderAnnotated } from '../src/media/annotate.node.js';
import { decodePicture } from '../src/media/decode.node.js';
import { describe } from '../src/nets/describe.js';
import { loadWeights } from '../src/weights/load.node.js';
import { NETS, weightsFor } from './nets.js';
import { benchArgs, countOf, fail, namesOf, precisionOf } from './options.js';
import { benchPeers } from './peers.js';
import { benchTrainingPeers } from './peers_train.js';
import { adapterName, emit, GROUP_PHOTOS, median, round, wakeUp } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    only: { type: 'string' },
    runs: { type: 'string', default: '9' },
    precision: { type: 'string' },
    peers: { type: 'boolean', default: false },
    train: { type: 'boolean', default: false },
    batch: { type: 'string', default: '16' },
    engines: { type: 'string' },
  },
});
const only =
  values.only === undefined ? undefined : namesOf('only', values.only, [...Object.keys(NETS), 'annotate']);
const runs = countOf('runs', values.runs);
const precision = precisionOf(values.precision);
const wanted = (name: string) => !only || only.includes(name);

if (values.train && !values.peers) fail('--train goes with --peers; our step alone is bench/train.ts.');

async function benchNet(name: string, peak: number): Promise<void> {
  const gpu = await openGpu();
  const [build, shape] = NETS[name];
  const graph = build(shape);
  const values = weightsFor(graph);
  const started = performance.now();
  const model = new Model(gpu, build, values, { precision });
  const executable = await model.at(shape);
  const x = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
  const compiled = performance.now();
  await executable.run({ x });
  const first = performance.now();
  await wakeUp(gpu, () => executable.run({ x }));
  const times: number[] = [];
  const processor: number[] = [];
  for (let i = 0; i < runs; i++) {
    const cpu = process.cpuUsage();
    const start = performance.now();
    await executable.run({ x });
    times.push(performance.now() - start);
    const { user, system } = process.cpuUsage(cpu);
    processor.push((user + system) / 1000 / availableParallelism());
  }
  const ms = median(times);
  const gflops = (2 * describe(graph).macs) / ms / 1e6;
  emit({
    bench: 'net',
    name,
    precision,
    ms: round(ms, 2),
    // Where the adapter is the processor: its time over its cores, which other work disturbs less than wall time.
    processor_ms: round(median(processor), 2),
    gflops: round(gflops, 2),
    share_of_peak: round(gflops / peak, 3),
    compile_ms: round(compiled - started, 0),
    first_run_ms: round(first - compiled, 0),
    gpu_mb: round(gpu.stats.bytes / 1e6, 1),
    arena_mb: round(executable.memory.bytes / 1e6, 2),
    arena_lower_bound_mb: round(executable.memory.lowerBound / 1e6, 2),
  });
  await kernels(gpu, name, executable);
  gpu.close();
}

/** Time by kernel family, where the adapter has timestamp queries. */
async function kernels(gpu: Gpu, net: string, executable: Awaited<ReturnType<Model['at']>>): Promise<void> {
  if (!gpu.device.features.has('timestamp-query')) return;
  const families = new Map<string, { ms: number; flops: number; bytes: number; calls: number }>();
  for (const t of await profileProgram(gpu, executable.program)) {
    const f = families.get(t.label) ?? { ms: 0, flops: 0, bytes: 0, calls: 0 };
    families.set(t.label, {
      ms: f.ms + t.ms,
      flops: f.flops + t.flops,
      bytes: f.bytes + t.bytes,
      calls: f.calls + 1,
    });
  }
  for (const [kernel, f] of [...families].sort((a, b) => b[1].ms - a[1].ms)) {
    emit({
      bench: 'kernel',
      net,
      kernel,
      calls: f.calls,
      ms: round(f.ms, 3),
      gflops: round(f.flops / f.ms / 1e6, 2),
      gbytes: round(f.bytes / f.ms / 1e6, 2),
      // Of what the slower of the two probes allows: the roofline of what the kernel computes and must move.
      share_of_roof: round(Math.max(f.flops / peak, f.bytes / copyRate) / f.ms / 1e6, 3),
    });
  }
}

/** One group photo from file to encoded picture; medians of the stages. */
async function benchAnnotate(): Promise<void> {
  const weights = await Promise.all([loadWeights('detector'), loadWeights('recogniser')]).catch(
    (error: Error) => error,
  );
  if (weights instanceof Error) return emit({ bench: 'annotate', skipped: weights.message });
  const gpu = await openGpu();
  const detector = Mtcnn.create(gpu, weights[0]);
  const embedder = Embedder.create(gpu, weights[1]);
  const file = path.join(GROUP_PHOTOS, 'sample1.jpg');
  const bytes = readFileSync(file);
  const stages: Record<string, number[]> = {
    decode: [],
    upload: [],
    detect: [],
    embed: [],
    draw_encode: [],
    total: [],
  };
  let last = 0;
  const mark = (stage: string) => {
    const now = performance.now();
    stages[stage].push(now - last);
    last = now;
  };
  let first = 0;
  let faces = 0;
  let size = '';
  for (let i = 0; i <= runs; i++) {
    const start = performance.now();
    last = start;
    const picture = await decodePicture(bytes);
    mark('decode');
    const uploaded = GpuPicture.upload(gpu, picture);
    mark('upload');
    const found = await detector.detect(uploaded, { minFace: 50 });
    mark('detect');
    await embedder.embed(
      uploaded,
      found.map((f) => f.landmarks),
    );
    mark('embed');
    await renderAnnotated(
      picture,
      found.map((f) => ({ ...f, label: 'Name', similarity: f.score })),
      { format: 'jpg' },
    );
    mark('draw_encode');
    uploaded.destroy();
    stages.total.push(performance.now() - start);
    faces = found.length;
    size = `${picture.width}×${picture.height}`;
    if (i === 0) {
      first = stages.total[0];
      for (const list of Object.values(stages)) list.length = 0;
    }
  }
  emit({
    bench: 'annotate',
    picture: size,
    faces,
    first_ms: round(first, 0),
    ...Object.fromEntries(Object.entries(stages).map(([k, v]) => [`${k}_ms`, round(median(v), 1)])),
    gpu_mb: round(gpu.stats.bytes / 1e6, 1),
  });
  gpu.close();
}

const probe = await openGpu();
const { gflops: peak } = await measureFmaRate(probe, 1);
const copyRate = await measureCopyRate(probe);
emit({
  bench: 'device',
  adapter: adapterName(probe),
  fma_gflops: round(peak, 1),
  copy_gbs: round(copyRate, 1),
  precision,
  date: new Date().toISOString().slice(0, 10),
});
probe.close();
if (values.peers) {
  const engines = values.engines?.split(',');
  if (values.train)
    await benchTrainingPeers({
      nets: only ?? ['mobilefacenet'],
      batch: countOf('batch', values.batch),
      side: 112,
      engines,
      runs,
    });
  else await benchPeers({ only, engines, runs });
  // Other engines leave workers and timers behind.
  process.exit(0);
}
for (const name of Object.keys(NETS)) if (wanted(name)) await benchNet(name, peak);
if (wanted('annotate')) await benchAnnotate();
