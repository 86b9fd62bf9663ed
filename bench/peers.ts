// npm run bench -- --peers [--only mobilefacenet,iresnet50] [--engines wfr,tfjs-webgpu,…] [--runs 5]
//
// The same nets, weights and inputs in other engines on the same adapter and in the same process, taken in turn so
// that whatever else the machine does falls on all alike. Polls of Dawn's Node binding are spaced for everybody
// (src/gpu/polling.node.ts). Outputs are compared with wfr's f32. One JSON line an engine and net: median wall time,
// processor time over the number of cores (which a busy machine disturbs less), first run, GFLOP/s, cosine.
//
// The engines are no dependency of wfr: they are installed into bench/peers when this first runs. Training steps of
// theirs: peers_train.ts.
import { availableParallelism } from 'node:os';
import { openGpu } from '../src/gpu/gpu.js';
import { fuse } from '../src/graph/fuse.js';
import { Model } from '../src/graph/model.js';
import { describe } from '../src/nets/describe.js';
import { exportOnnx } from '../src/weights/onnx/export.js';
import { NETS, weightsFor } from './nets.js';
import { enginesOf } from './options.js';
import { jax, onnxruntime, tfjs } from './peers/engines.mjs';
import { litert } from './peers/litert.mjs';
import { writeTflite } from './peers/tflite.mjs';
import { separate } from './peers_graph.js';
import { installPeers, presentGpu } from './peers_setup.js';
import { tfliteModel } from './peers_tflite.js';
import { emit, median, round } from './shared.js';

interface Session {
  run(x: Float32Array): Promise<Float32Array>;
  close(): void | Promise<void>;
}

interface Row {
  name: string;
  session?: Session;
  first: number;
  wall: number[];
  cpu: number[];
  output?: Float32Array;
  failed?: string;
}

const ENGINES = [
  'wfr f16',
  'wfr f32',
  'jax-js webgpu',
  'tfjs webgpu',
  'onnxruntime webgpu',
  'tfjs wasm',
  'onnxruntime wasm',
  'litert wasm',
];

export async function benchPeers(options: {
  only?: string[];
  engines?: string[];
  runs: number;
}): Promise<void> {
  installPeers();
  await presentGpu();
  const wanted = enginesOf(options.engines, ENGINES);
  const names = Object.keys(NETS).filter((n) => !options.only || options.only.includes(n));
  for (const name of names) await compareNet(name, wanted, options.runs);
}

async function compareNet(name: string, engines: readonly string[], runs: number): Promise<void> {
  const [build, shape] = NETS[name];
  const source = build(shape);
  const weights = weightsFor(source);
  const { graph: fused, derived } = fuse(source, weights);
  const graph = separate(fused);
  const values = { get: (n: string) => derived.get(n) ?? weights.get(n) };
  const net = { graph, values, shape, onnx: exportOnnx(source, weights) };
  const tflite = engines.includes('litert wasm') ? await writeTflite(tfliteModel(graph, values)) : undefined;
  const x = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) =>
    Math.sin((i * i) % 977),
  );
  const gpu = await openGpu();
  const ours = async (precision: 'f32' | 'f16'): Promise<Session> => {
    const model = new Model(gpu, build, weights, { precision });
    const executable = await model.at(shape);
    const [output] = executable.outputs.keys();
    return {
      run: async (input) => (await executable.run({ x: input }, [output]))[output],
      close: () => model.destroy(),
    };
  };
  const open: Record<string, () => Promise<Session>> = {
    'wfr f16': () => ours('f16'),
    'wfr f32': () => ours('f32'),
    'jax-js webgpu': async () => (await jax())(net),
    'tfjs webgpu': async () => (await tfjs('webgpu'))(net),
    'tfjs wasm': async () => (await tfjs('wasm'))(net),
    'onnxruntime webgpu': async () => (await onnxruntime('webgpu'))(net),
    'onnxruntime wasm': async () => (await onnxruntime('wasm'))(net),
    'litert wasm': async () => (await litert())({ shape, tflite: tflite! }),
  };
  const rows: Row[] = [];
  for (const engine of engines) {
    const row: Row = { name: engine, first: 0, wall: [], cpu: [] };
    rows.push(row);
    try {
      const start = performance.now();
      row.session = await open[engine]();
      row.output = await row.session.run(x);
      row.first = performance.now() - start;
    } catch (error) {
      row.failed = String((error as Error).message ?? error).slice(0, 200);
      row.session = undefined;
    }
  }
  for (let i = 0; i < runs; i++) {
    for (const row of rows) {
      if (!row.session) continue;
      const cpu = process.cpuUsage();
      const start = performance.now();
      await row.session.run(x);
      row.wall.push(performance.now() - start);
      const { user, system } = process.cpuUsage(cpu);
      row.cpu.push((user + system) / 1000 / availableParallelism());
    }
  }
  const flops = 2 * describe(source).macs;
  const reference = rows.find((r) => r.name === 'wfr f32')?.output ?? rows.find((r) => r.output)?.output;
  for (const row of rows) {
    const common = { bench: 'peer', net: name, shape, engine: row.name };
    if (row.failed || !row.output) {
      emit({ ...common, failed: row.failed });
      continue;
    }
    const ms = median(row.wall);
    emit({
      ...common,
      ms: round(ms, 2),
      least_ms: round(Math.min(...row.wall), 2),
      processor_ms: round(median(row.cpu), 2),
      gflops: round(flops / ms / 1e6, 2),
      first_ms: Math.round(row.first),
      cosine: reference && round(cosine(row.output, reference), 7),
    });
    await row.session?.close();
  }
  gpu.close();
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < b.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / Math.sqrt(aa * bb);
}
