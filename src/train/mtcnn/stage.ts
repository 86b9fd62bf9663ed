import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import type { Graph } from '../../graph/graph.js';
import type { ParameterValue } from '../../graph/parameters.js';
import { TrainableParameters } from '../../graph/trainable.js';
import { TrainingStep } from '../../graph/training.js';
import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import { initialize } from '../../nets/initialize.js';
import { type MtcnnNet, mtcnnTraining, NET_LOSS } from '../../nets/mtcnn.js';
import type { StateDict } from '../../weights/state_dict.js';
import { learningRate } from '../schedule.js';
import { Batches } from './batches.js';
import { type SampleBatch, type Samples, TARGETS } from './vary.js';

export interface StageOptions {
  batch: number;
  steps: number;
  /** Highest learning rate (AdamW; warm-up, then half a cosine down to a hundredth). */
  rate: number;
  seed: number;
  /** Weight of the points in O-Net's loss; that of NET_LOSS without. */
  pointsWeight?: number;
}

/** Small batches make most of few samples seen: O-Net's cost is by sample (docs/training-log.md). */
export const STAGES: Record<MtcnnNet, Omit<StageOptions, 'seed'>> = {
  pnet: { batch: 384, steps: 6000, rate: 3e-3 },
  rnet: { batch: 128, steps: 6000, rate: 2e-3 },
  onet: { batch: 64, steps: 10_000, rate: 3e-3 },
};

export interface StageRecord {
  step: number;
  learningRate: number;
  loss: number;
  /** Means over the samples of each task since the last record. */
  classLoss: number;
  boxLoss: number;
  pointsLoss: number;
  accuracy: number;
}

export interface StageHooks {
  /** Weights to begin with; by default random ones. */
  init?: StateDict;
  /** From where to go on. */
  resume?: { step: number; buffers: Record<string, ArrayBuffer> };
  /** At the first step and every `recordEvery` steps. Default 20. */
  recordEvery?: number;
  onRecord?(record: StageRecord): void;
  /** Every `saveEvery` steps and before an abort is let through. */
  saveEvery?: number;
  onSave?(step: number, buffers: Record<string, ArrayBuffer>): Promise<void>;
  signal?: AbortSignal;
}

const WEIGHT_DECAY = 1e-4;
const AVERAGE = 0.998;

/**
 * Trains one net on its samples and returns the average of the weights over the last few hundred steps.
 * @throws WfrError when `init` lacks the net or the loss is no longer a number; AbortError after a checkpoint when the signal asks for it.
 */
export async function trainNet(
  gpu: Gpu,
  net: MtcnnNet,
  samples: Samples,
  options: StageOptions,
  hooks: StageHooks = {},
): Promise<Map<string, ParameterValue>> {
  const { batch: size, steps, rate, seed, pointsWeight = NET_LOSS[net].pointsWeight } = options;
  const graph = mtcnnTraining(net, size, { ...NET_LOSS[net], pointsWeight });
  const begin = hooks.init ? givenValues(net, graph, hooks.init) : startingValues(net, graph, samples, seed);
  const parameters = TrainableParameters.create(gpu, graph, begin, {
    optimizer: { kind: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: WEIGHT_DECAY },
    ema: AVERAGE,
  });
  let step: TrainingStep | undefined;
  try {
    if (hooks.resume) parameters.restore(hooks.resume.buffers);
    step = await TrainingStep.compile(gpu, graph, 'loss', parameters);
    const batches = new Batches(samples, net, size, seed);
    const schedule = { kind: 'cosine', rate, steps, stepsPerEpoch: steps, final: rate / 100 } as const;
    const warmup = Math.min(100, Math.floor(steps / 10));
    const every = hooks.recordEvery ?? 20;
    let batch = batches.at(hooks.resume?.step ?? 0);
    for (let at = hooks.resume?.step ?? 0; at < steps; at++) {
      step.setInput('x', batch.x);
      step.setInput('tasks', batch.tasks);
      step.setInput('boxTarget', batch.boxTarget);
      if (net === 'onet') step.setInput('pointsTarget', batch.pointsTarget);
      const now = learningRate({ ...schedule, warmup }, at);
      const isRecord = at === 0 || (at + 1) % every === 0 || at + 1 === steps;
      const running = step.run({ learningRate: now }, isRecord ? ['loss', 'rows'] : []);
      // The next batch is put together while the device works.
      const current = batch;
      batch = batches.at(at + 1);
      const out = await running;
      if (isRecord) {
        if (!Number.isFinite(out.loss[0]))
          throw new WfrError(
            `${net}: the loss is ${out.loss[0]} at step ${at + 1}. A lower learning rate may help.`,
          );
        hooks.onRecord?.({ step: at + 1, learningRate: now, loss: out.loss[0], ...means(current, out.rows) });
      }
      const stops = hooks.signal?.aborted;
      if (hooks.onSave && (stops || (hooks.saveEvery && (at + 1) % hooks.saveEvery === 0)))
        await hooks.onSave(at + 1, await parameters.snapshot());
      hooks.signal?.throwIfAborted();
    }
    return await parameters.read('ema');
  } finally {
    step?.destroy();
    parameters.destroy();
  }
}

/**
 * Random weights, but the heads of boxes and points begin small and at the samples' means: a net that has seen little is right
 * on average instead of far off.
 */
function startingValues(
  net: MtcnnNet,
  graph: Graph,
  samples: Samples,
  seed: number,
): Map<string, ParameterValue> {
  const values = initialize(graph, seed);
  const begin = (layer: string, bit: number, first: number, width: number) => {
    const weight = values.get(`${net}.${layer}.weight`)!;
    const bias = values.get(`${net}.${layer}.bias`)!;
    for (let i = 0; i < weight.data.length; i++) weight.data[i] *= 0.1;
    let count = 0;
    for (let i = 0; i < samples.count; i++) {
      if (!(samples.tasks[i] & bit)) continue;
      count++;
      for (let k = 0; k < width; k++)
        bias.data[k] += (samples.targets[i * TARGETS + first + k] - bias.data[k]) / count;
    }
  };
  begin(BOX_HEAD[net], TASK.box, 0, 4);
  if (net === 'onet') begin('dense6_3', TASK.points, 4, 10);
  return values;
}

function givenValues(net: MtcnnNet, graph: Graph, init: StateDict): Map<string, ParameterValue> {
  const values = new Map<string, ParameterValue>();
  for (const { op, name } of graph.nodes) {
    if (op !== 'parameter') continue;
    const value = init.get(name!);
    if (!value) throw new WfrError(`The weights to begin with lack ${name}: they are no ${net}'s.`);
    values.set(name!, value);
  }
  return values;
}

const BOX_HEAD: Record<MtcnnNet, string> = { pnet: 'conv4_2', rnet: 'dense5_2', onet: 'dense6_2' };

function means(batch: SampleBatch, rows: Float32Array): Omit<StageRecord, 'step' | 'learningRate' | 'loss'> {
  const sums = [0, 0, 0, 0];
  const counts = [0, 0, 0, 0];
  for (const [i, task] of batch.tasks.entries()) {
    [TASK.classify, TASK.box, TASK.points, TASK.classify].forEach((bit, k) => {
      if (!(task & bit)) return;
      sums[k] += rows[4 * i + k];
      counts[k]++;
    });
  }
  const [classLoss, boxLoss, pointsLoss, accuracy] = sums.map((s, k) => s / Math.max(1, counts[k]));
  return { classLoss, boxLoss, pointsLoss, accuracy };
}
