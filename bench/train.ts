// npx tsx bench/train.ts [--net mobilefacenet,iresnet50] [--batch 1,8,16,32] [--size 112] [--runs 5]
//                        [--precision f16] [--recompute] [--memory 3] [--kernels] [--trusted]
//
// One JSON line a net and batch: a whole training step (forward, cross-entropy over 100 classes, backward, SGD with momentum)
// in milliseconds, pictures/s, GFLOP/s and memory, beside the device's rate of multiply-adds in the same run; then,
// where the adapter has timestamp queries, one line with the shares of forward convolutions, input gradients, weight
// gradients, depthwise gradients that are made together with a norm's sums, batch norm, optimiser and the rest; with
// --kernels also one line a kind of kernel. A batch that would take more than --memory GB is left out and said so.
//
// Random weights and pictures: they cost what trained ones do. `cpu_ms` is the processor time of this process for a
// step, driver included: on a software adapter it tells the work apart from how busy the machine is with other things.
import { type Gpu, openGpu } from '../src/gpu/gpu.js';
import { type KernelTime, profileProgram } from '../src/gpu/profile.js';
import { TrainableParameters } from '../src/graph/trainable.js';
import { planTraining, type TrainingOptions, TrainingStep } from '../src/graph/training.js';
import { measureFmaRate } from '../src/kernels/probe/measure.js';
import { initialize } from '../src/nets/initialize.js';
import { LEARNING_RATE, TRAINABLE, TRAINED, trainingBatch, trainingGraph } from './nets.js';
import { above0, benchArgs, countOf, namesOf, precisionOf } from './options.js';
import { adapterName, emit, median, round, wakeUp } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    net: { type: 'string', default: 'mobilefacenet,iresnet50' },
    batch: { type: 'string', default: '1,8,16,32' },
    size: { type: 'string', default: '112' },
    runs: { type: 'string', default: '5' },
    precision: { type: 'string', default: 'f32' },
    recompute: { type: 'boolean', default: false },
    memory: { type: 'string', default: '3' },
    kernels: { type: 'boolean', default: false },
    trusted: { type: 'boolean', default: false },
  },
});
const runs = countOf('runs', values.runs);
const side = countOf('size', values.size);
const nets = namesOf('net', values.net, Object.keys(TRAINED));
const memory = above0('memory', values.memory);
const batches = values.batch.split(',').map((n) => countOf('batch', n));
const options: TrainingOptions = { precision: precisionOf(values.precision), recompute: values.recompute };

/** What a kernel's time counts as. */
function shareOf(label: string): string {
  if (label.startsWith('conv2d.forward')) return 'forward';
  if (label.startsWith('conv2d.grad_input')) return 'input_gradient';
  if (label.startsWith('conv2d.grad_weight') || label.startsWith('reduce')) return 'weight_gradient';
  if (label.startsWith('conv2d.gradients')) return 'depthwise_gradients';
  if (label.startsWith('batchNorm')) return 'batch_norm';
  return label.startsWith('optimizer') ? 'optimizer' : 'other';
}

function sumBy(times: readonly KernelTime[], key: (t: KernelTime) => string) {
  const sums: Record<string, { calls: number; ms: number; flops: number; bytes: number }> = {};
  for (const t of times) {
    sums[key(t)] ??= { calls: 0, ms: 0, flops: 0, bytes: 0 };
    const sum = sums[key(t)];
    sum.calls++;
    sum.ms += t.ms;
    sum.flops += t.flops;
    sum.bytes += t.bytes;
  }
  return sums;
}

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

async function bench(gpu: Gpu, net: string, batch: number): Promise<void> {
  const line = { bench: 'train', net, batch, size: side, ...options };
  if (batch === 1) {
    // The norm after the last layer has one value a channel then, and no variance.
    return emit({ ...line, skipped: 'batch norm of the embedding needs two pictures or more' });
  }
  const graph = trainingGraph(net, batch, side);
  const plan = planTraining(gpu, graph, 'loss', TRAINABLE, options);
  if (plan.total > memory * 1e9)
    return emit({ ...line, skipped: `would take ${round(plan.total / 1e9, 2)} GB` });
  const parameters = TrainableParameters.create(gpu, graph, initialize(graph, 1), TRAINABLE);
  const started = performance.now();
  const step = await TrainingStep.compile(gpu, graph, 'loss', parameters, options);
  const { x, labels } = trainingBatch(batch, side);
  step.setInput('x', x);
  step.setInput('labels', labels);
  await step.run({ learningRate: LEARNING_RATE }, ['loss']);
  const first = performance.now() - started;
  await wakeUp(gpu, () => step.run({ learningRate: LEARNING_RATE }));
  const wall: number[] = [];
  const cpu: number[] = [];
  for (let i = 0; i < runs; i++) {
    const [start, used] = [performance.now(), cpuMs()];
    await step.run({ learningRate: LEARNING_RATE });
    wall.push(performance.now() - start);
    cpu.push(cpuMs() - used);
  }
  const ms = median(wall);
  emit({
    ...line,
    ms: round(ms),
    best_ms: round(Math.min(...wall)),
    cpu_ms: round(Math.min(...cpu)),
    pictures_per_s: round((batch / ms) * 1000),
    gflops: round(step.flops / ms / 1e6),
    compile_and_first_ms: round(first, 0),
    arena_mb: round(step.memory.arena / 1e6),
    total_mb: round(step.memory.total / 1e6),
  });
  if (gpu.device.features.has('timestamp-query')) {
    const times = await profileProgram(gpu, step.program);
    const shares = sumBy(times, (t) => shareOf(t.label));
    const total = Object.values(shares).reduce((s, v) => s + v.ms, 0);
    const parts = Object.entries(shares).sort((a, b) => b[1].ms - a[1].ms);
    emit({
      bench: 'train.shares',
      net,
      batch,
      ...Object.fromEntries(
        parts.map(([k, v]) => [
          k,
          { share: round(v.ms / total, 3), ms: round(v.ms), gflops: round(v.flops / v.ms / 1e6) },
        ]),
      ),
    });
    if (values.kernels) {
      const kinds = Object.entries(sumBy(times, (t) => t.label)).sort((a, b) => b[1].ms - a[1].ms);
      for (const [kernel, v] of kinds) {
        const rates = { gflops: round(v.flops / v.ms / 1e6), gbs: round(v.bytes / v.ms / 1e6) };
        emit({ bench: 'train.kernel', net, batch, kernel, calls: v.calls, ms: round(v.ms), ...rates });
      }
    }
  }
  step.destroy();
  parameters.destroy();
}

const gpu = await openGpu({ trusted: values.trusted });
emit({
  bench: 'device',
  adapter: adapterName(gpu),
  fma_gflops: round((await measureFmaRate(gpu, 1)).gflops),
});
for (const net of nets) for (const batch of batches) await bench(gpu, net, batch);
gpu.close();
