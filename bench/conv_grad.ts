// npx tsx bench/conv_grad.ts [--net mobilefacenet|iresnet50] [--batch 16] [--size 112] [--runs 5] [--only TEXT] [--storage f16] [--clock cpu]
//
// The convolutions of a net, forward and backward: one JSON line for each shape with the GFLOP/s of the forward pass,
// the input gradient and the weight gradient (best of several runs, in turn, by timestamp queries), then the totals
// over the net, each shape as often as the net has it, beside the device's rate of multiply-adds measured in the same
// run. `gemm` is the reference: a plain matrix product of the same inner sizes, [rows, kh·kw·C] × [kh·kw·C, out channels],
// with as many rows as the map has pixels (fewer where the left matrix would pass 32 MB; a rate does not mind), which
// is what the weight gradient costs in operations. Padding channels are not counted as work; the first layer's input
// gradient, which no training step needs, is shown but left out of the totals. `--clock cpu` measures by the process's own processor time (GFLOP/s of one core):
// for software adapters on a machine that does other things too.
import { type BufferRange, type Gpu, openGpu } from '../src/gpu/gpu.js';
import type { FloatType, KernelCall } from '../src/gpu/kernel_call.js';
import { profileProgram } from '../src/gpu/profile.js';
import { Program } from '../src/gpu/program.js';
import type { Graph } from '../src/graph/graph.js';
import { convolutionShape, denseShape } from '../src/graph/lowering.js';
import { conv2dForward } from '../src/kernels/conv2d/forward.js';
import { convFlops } from '../src/kernels/conv2d/geometry.js';
import { conv2dGradInput } from '../src/kernels/conv2d/grad_input.js';
import { conv2dGradWeight } from '../src/kernels/conv2d/grad_weight.js';
import { planConv2d } from '../src/kernels/conv2d/plan.js';
import type { Conv2dShape } from '../src/kernels/conv2d/types.js';
import { measureFmaRate } from '../src/kernels/probe/measure.js';
import { type Operand, quads, tensorBytes } from '../src/kernels/tensor.js';
import { iresnet } from '../src/nets/iresnet.js';
import { mobileFaceNet } from '../src/nets/mobilefacenet.js';
import { benchArgs, countOf, namesOf } from './options.js';
import { adapterName, emit, round } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    net: { type: 'string', default: 'mobilefacenet' },
    batch: { type: 'string', default: '16' },
    size: { type: 'string', default: '112' },
    runs: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    storage: { type: 'string', default: 'f32' },
    clock: { type: 'string', default: 'gpu' },
  },
});
const [storage] = namesOf('storage', values.storage, ['f32', 'f16']) as FloatType[];
const [clock] = namesOf('clock', values.clock, ['gpu', 'cpu']);
const size = countOf('size', values.size);
const batch = countOf('batch', values.batch);
const runs = countOf('runs', values.runs);
const NETS: Record<string, (shape: readonly number[]) => Graph> = {
  mobilefacenet: (shape) => mobileFaceNet(shape),
  iresnet50: (shape) => iresnet(shape, { depth: 50 }),
};
const [net] = namesOf('net', values.net, Object.keys(NETS));

interface Layer {
  shape: Conv2dShape;
  count: number;
  /** Whether it stands on the net's input, which needs no gradient. */
  first: boolean;
}

/** The distinct convolutions of a net, in order, with how often each occurs. */
function shapesOf(graph: Graph): Layer[] {
  const found = new Map<string, Layer>();
  for (const node of graph.nodes) {
    if (node.op !== 'conv2d' && node.op !== 'dense') continue;
    const [x, weight] = node.inputs.map((id) => graph.node(id).shape);
    const shape =
      node.op === 'conv2d' ? convolutionShape(x, weight, node.shape, node.attributes) : denseShape(x, weight);
    const key = JSON.stringify(shape);
    const known = found.get(key);
    if (known) known.count++;
    else found.set(key, { shape, count: 1, first: graph.node(node.inputs[0]).op === 'input' });
  }
  return [...found.values()];
}

const describeShape = (s: Conv2dShape): string => {
  const kind = s.groups > 1 && s.groups === s.inChannels ? 'depthwise' : s.groups > 1 ? 'grouped' : 'conv';
  return `${kind} ${s.kernelHeight}×${s.kernelWidth} s${s.stride} ${s.inHeight}×${s.inWidth}×${s.inChannels}→${s.outChannels}`;
};

async function gpuTime(gpu: Gpu, program: Program): Promise<number> {
  return (await profileProgram(gpu, program)).reduce((sum, t) => sum + t.ms, 0);
}

/** Processor time of a run, repeated until it is long enough to be told from the submit's. */
async function cpuTime(gpu: Gpu, program: Program, estimate: number): Promise<number> {
  const repeats = Number.isFinite(estimate) ? Math.max(1, Math.min(50, Math.round(50 / estimate))) : 1;
  const start = process.cpuUsage();
  await gpu.runAndRead((encoder) => {
    for (let i = 0; i < repeats; i++) program.record(encoder);
  }, []);
  const used = process.cpuUsage(start);
  return (used.user + used.system) / 1000 / repeats;
}

/** The matrix product with the operations of an ungrouped convolution, as a dense layer of many rows. */
function gemmOf(s: Conv2dShape): Conv2dShape | undefined {
  if (s.groups !== 1) return undefined;
  const inner = s.kernelHeight * s.kernelWidth * s.inChannels;
  const rows = Math.min(s.batch * s.outHeight * s.outWidth, Math.floor(32e6 / (4 * inner)));
  return denseShape([rows, inner], [s.outChannels, inner]);
}

/** Milliseconds of forward, input gradient, weight gradient and the GEMM, each the best of `runs` taken in turn. */
async function measure(
  gpu: Gpu,
  s: Conv2dShape,
  gemm: Conv2dShape | undefined,
  runs: number,
): Promise<{ ms: number[]; compile: number[]; labels: string[] }> {
  const made: GPUBuffer[] = [];
  const bytes = (size: number, fill: boolean): BufferRange => {
    const data = new Float32Array(Math.ceil(size / 4));
    // As f16 pairs these bits are small numbers too.
    if (fill) for (let i = 0; i < data.length; i++) data[i] = Math.sin(i);
    const buffer = gpu.createStorage(data.byteLength, 'bench', new Uint8Array(data.buffer));
    made.push(buffer);
    return { buffer, offset: 0, size: data.byteLength };
  };
  const operand = (
    shape: readonly number[],
    fill = false,
    dtype: FloatType = storage,
  ): Operand<BufferRange> => ({
    ref: bytes(tensorBytes(shape, dtype), fill),
    shape,
    dtype,
  });
  const temporary = (shape: readonly number[], dtype: FloatType) => operand(shape, false, dtype);
  const depth =
    s.groups === 1 ? quads(s.inChannels) * 4 : s.groups === s.inChannels ? 1 : s.inChannels / s.groups;
  const weights = [s.kernelHeight * s.kernelWidth * depth, s.outChannels];
  const weight = operand(weights, true, 'f32').ref;
  const dw = operand(weights, false, 'f32').ref;
  const x = operand([s.batch, s.inHeight, s.inWidth, s.inChannels], true);
  const y = operand([s.batch, s.outHeight, s.outWidth, s.outChannels], true);
  const dx = operand([s.batch, s.inHeight, s.inWidth, s.inChannels]);
  // Weights are those of training, f32: rounded where matrix units multiply, and nowhere else.
  const precision = gpu.traits.subgroupMatrix ? storage : 'f32';
  const plan = (shape: Conv2dShape) => planConv2d(shape, gpu.traits, { precision });
  const lists: KernelCall<BufferRange>[][] = [
    conv2dForward({ shape: s, x, weight, activation: 'none', y }, plan(s), gpu.traits),
    conv2dGradInput({ shape: s, dy: y, weight, dx }, gpu.traits),
    conv2dGradWeight({ shape: s, x, dy: y, dw, temporary }, gpu.traits),
  ];
  if (gemm) {
    const [rows, inner] = [gemm.batch * gemm.inHeight * gemm.inWidth, gemm.inChannels];
    const product = {
      shape: gemm,
      x: operand([rows, inner], true),
      weight: operand([quads(inner) * 4, gemm.outChannels], true, 'f32').ref,
      activation: 'none' as const,
      y: operand([rows, gemm.outChannels]),
    };
    lists.push(conv2dForward(product, plan(gemm), gpu.traits));
  }
  const programs = await Promise.all(lists.map((calls) => Program.create(gpu, calls)));
  const ms = lists.map(() => Number.POSITIVE_INFINITY);
  const compile: number[] = [];
  for (let run = 0; run <= runs; run++) {
    for (const [i, program] of programs.entries()) {
      const total = clock === 'cpu' ? await cpuTime(gpu, program, ms[i]) : await gpuTime(gpu, program);
      if (run > 0) ms[i] = Math.min(ms[i], total);
      // The first run compiles.
      else compile.push(total);
    }
  }
  for (const p of programs) p.destroy();
  for (const b of made) gpu.destroyBuffer(b);
  return { ms, compile, labels: lists.flatMap((calls) => calls.map((c) => c.label)) };
}

const gpu = await openGpu();
const { gflops: peak } = await measureFmaRate(gpu, 1);
const graph = NETS[net]([batch, size, size, 3]);
emit({
  bench: 'conv_grad',
  adapter: adapterName(gpu),
  fma_gflops: round(peak),
  net,
  batch,
  size,
  storage,
});
const totals = [0, 0, 0];
const work = [0, 0, 0];
for (const { shape, count, first } of shapesOf(graph)) {
  if (!describeShape(shape).includes(values.only)) continue;
  const gemm = gemmOf(shape);
  const { ms, compile, labels } = await measure(gpu, shape, gemm, runs);
  const flops = convFlops(shape);
  ms.slice(0, 3).forEach((v, i) => {
    if (first && i === 1) return;
    totals[i] += v * count;
    work[i] += flops * count;
  });
  const [forward, gradInput, gradWeight] = ms.map((v) => round(flops / v / 1e6));
  const product = gemm && round(convFlops(gemm) / ms[3] / 1e6);
  emit({
    layer: describeShape(shape),
    count,
    ms: ms.map((v) => round(v, 2)),
    forward,
    grad_input: gradInput,
    grad_weight: gradWeight,
    gemm: product,
    weight_to_gemm: product && round(gradWeight / product, 2),
    backward_share: round((2 * ms[0]) / (ms[1] + ms[2]), 2),
    first_ms: compile.map((v) => round(v, 0)),
    kernels: labels,
  });
}
emit({
  total_ms: totals.map((v) => round(v)),
  gflops: totals.map((v, i) => round(work[i] / v / 1e6)),
  backward_share: round(((work[1] + work[2]) / (totals[1] + totals[2])) * (totals[0] / work[0]), 2),
});
gpu.close();
