// One engine of bench/peers_train.ts in a process of its own: [engine, net, batch, side] as arguments. Says "ready" once
// net, weights and pictures are there; then each message from the parent asks for one step, the first of which also loads
// the engine and compiles, and is answered.
import { existsSync, readFileSync } from 'node:fs';
import { openGpu } from '../src/gpu/gpu.js';
import type { FloatType } from '../src/gpu/kernel_call.js';
import { FlatLayout } from '../src/graph/flat_layout.js';
import { TrainableParameters } from '../src/graph/trainable.js';
import { TrainingStep } from '../src/graph/training.js';
import { initialize } from '../src/nets/initialize.js';
import { LEARNING_RATE, TRAINABLE, trainingBatch, trainingGraph } from './nets.js';
import { jax, type Step, tfjs } from './peers/train_engines.mjs';
import { presentGpu } from './peers_setup.js';

export interface StepReport {
  /** Before the step's update. */
  loss: number;
  ms: number;
  /** Processor time of this process, driver included, all cores together. */
  cpuMs: number;
  /** The most memory this process has had so far, bytes. */
  peakBytes: number;
}
export type Answer = StepReport | { failed: string } | 'ready';

const [engine, net, batchArgument, sideArgument] = process.argv.slice(2);
const batch = Number(batchArgument);
const side = Number(sideArgument);
const graph = trainingGraph(net, batch, side);
const values = initialize(graph, 1);
const { x, labels } = trainingBatch(batch, side);

async function ours(precision: FloatType): Promise<Step> {
  const gpu = await openGpu();
  const parameters = TrainableParameters.create(gpu, graph, values, TRAINABLE);
  const step = await TrainingStep.compile(gpu, graph, 'loss', parameters, { precision });
  step.setInput('x', x);
  step.setInput('labels', labels);
  return async () => (await step.run({ learningRate: LEARNING_RATE }, ['loss'])).loss[0];
}

async function peer(open: typeof jax): Promise<Step> {
  await presentGpu();
  const { momentum, weightDecay } = TRAINABLE.optimizer;
  const decay = new Map<string, number>();
  for (const { name, group } of new FlatLayout(graph).parameters.values()) {
    if (group === 'decay') decay.set(name, weightDecay);
    if (group === 'noDecay') decay.set(name, 0);
  }
  return open({ graph, values, x, labels, decay, momentum, learningRate: LEARNING_RATE });
}

const OPEN: Record<string, () => Promise<Step>> = {
  'wfr f32': () => ours('f32'),
  'wfr f16': () => ours('f16'),
  'jax-js webgpu': () => peer(jax),
  'tfjs webgpu': () => peer(tfjs),
};

/** Not getrusage's figure where there is a better one: on Linux that begins with what the parent had. */
function peakBytes(): number {
  const status = '/proc/self/status';
  const peak = existsSync(status) && /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(status, 'utf8'));
  return (peak ? Number(peak[1]) : process.resourceUsage().maxRSS) * 1024;
}

let step: Step | undefined;
const answer = (message: Answer) => process.send!(message);

process.on('message', async () => {
  try {
    const before = process.cpuUsage();
    const start = performance.now();
    step ??= await OPEN[engine]();
    const loss = await step();
    const ms = performance.now() - start;
    const { user, system } = process.cpuUsage(before);
    answer({
      loss,
      ms,
      cpuMs: (user + system) / 1000,
      peakBytes: peakBytes(),
    });
  } catch (error) {
    answer({ failed: String((error as Error).message ?? error).slice(0, 300) });
  }
});
process.on('disconnect', () => process.exit());
answer('ready');
