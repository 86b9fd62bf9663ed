import { WfrError } from '../gpu/errors.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import { checkFinite } from '../kernels/anomaly/check.js';
import { castWeight } from '../kernels/optimizer/cast.js';
import { decideStep, NORM_PARTS, squareSums } from '../kernels/optimizer/norm.js';
import { STEP_WORDS } from '../kernels/optimizer/step_words.js';
import {
  accumulateGradients,
  momentsOf,
  optimizerUpdate,
  runningUpdate,
} from '../kernels/optimizer/update.js';
import { quads } from '../kernels/tensor.js';
import type { FlatLayout } from './flat_layout.js';
import { fuseTraining } from './fuse_training.js';
import { describeNode, gradient } from './gradient.js';
import type { Graph, Node } from './graph.js';
import { LOWERINGS } from './lower.js';
import { TRAINING_LOWERINGS } from './lower_training.js';
import type { Lowering, MemoryOp } from './lowering.js';
import type { OpName } from './shapes.js';
import { lower, type Slot } from './slots.js';
import type { TrainableOptions } from './trainable.js';

export interface TrainingOptions {
  /** Gradients longer than this, over all parameters together, are scaled down to it. */
  clipNorm?: number;
  /** Batches whose gradients are averaged before an update. Default 1. */
  accumulate?: number;
  /**
   * f16 stores the maps of the forward pass and the convolutions' copies of the weights as halves, which takes half
   * the memory. Master weights, sums, statistics, vectors, losses and all gradients stay f32. Default f32.
   */
  precision?: FloatType;
  /**
   * Factor on the loss while its gradient is taken. `dynamic` begins high, halves when a gradient is not finite (that step
   * changes nothing) and doubles after 2000 good steps. By default none, for gradients are stored in f32.
   */
  lossScale?: 'dynamic' | number;
  /**
   * Keep only the maps where residual branches meet and compute what lies between again in the backward pass: less
   * memory for one more forward pass. Default false.
   */
  recompute?: boolean;
  /** Follow every op with a search for infinities and NaN, for `firstAnomaly`. Slow. */
  detectAnomaly?: boolean;
}

/** A step runs the net's own ops too. */
const EVERY_OP: Record<Exclude<OpName, MemoryOp>, Lowering> = { ...LOWERINGS, ...TRAINING_LOWERINGS };

/** PyTorch's: running = 0.9·running + 0.1·batch. */
const RUNNING_MOMENTUM = 0.1;

/** A training step before memory: the graph with its backward nodes and all kernel calls over slots. */
export interface TrainingCalls {
  graph: Graph;
  calls: KernelCall<Slot>[];
  /** Calls from here on are run only when the weights are updated. */
  update: number;
  slotOf(id: number): Slot;
  /** Buffers that the step needs beside those of the parameters, with their bytes. */
  own: Map<string, number>;
  /** What the anomaly flags stand for, in order of work. */
  names: string[];
}

export function lowerTraining(
  traits: DeviceTraits,
  source: Graph,
  lossName: string,
  layout: FlatLayout,
  trainable: TrainableOptions,
  options: TrainingOptions,
): TrainingCalls {
  if (!source.outputs.has(lossName))
    throw new WfrError(
      `${source.name} has no output ${lossName} to minimise; it has ${[...source.outputs.keys()].join(', ')}.`,
    );
  const { graph } = fuseTraining(source, traits);
  const forwardCount = graph.nodes.length;
  const { placed, copies } = placeGradients(graph, lossName, layout, options.recompute ?? false);
  const precision = options.precision ?? 'f32';
  const halves = precision === 'f16' ? storedAsHalves(graph, forwardCount) : new Set<number>();
  const own = new Map<string, number>();
  const names: string[] = [];
  const flat = (buffer: string, offset: number, bytes: number): Slot => ({ bytes, flat: { buffer, offset } });
  const step = flat('step', 0, STEP_WORDS * 4);

  const weights = new Map<string, Slot>();
  let casts: KernelCall<Slot>[] = [];
  const flags = flat('flags', 0, 0);
  const { calls, slotOf } = lower(graph, {
    lowerings: EVERY_OP,
    traits,
    precision,
    dtypeOf: (id) => (halves.has(copies.get(id) ?? id) ? 'f16' : 'f32'),
    parameter: (id, packing) => {
      const { name, shape } = graph.node(id);
      const p = layout.get(name!, shape);
      const master = weights.get(name!) ?? flat('weights', p.offset, p.bytes);
      weights.set(name!, master);
      if (packing === 'f32') return master;
      const slot = { bytes: p.bytes / 2 };
      casts.push(
        ...castWeight({ master, copy: slot, length: p.bytes / 4, outputs: quads(shape[0]) * 4 }, packing),
      );
      return slot;
    },
    before: () => {
      const taken = casts;
      casts = [];
      return taken;
    },
    needed: neededFor(graph, [...graph.outputs.values(), ...placed.keys()]),
    place: (id) => placed.get(id),
    step,
    after: options.detectAnomaly
      ? (id, slot, dtype: FloatType) => {
          names.push(describeNode(graph, id));
          return checkFinite({ x: slot, words: slot.bytes / 4, dtype, flags, index: names.length - 1 });
        }
      : undefined,
  });
  if (options.detectAnomaly) {
    flags.bytes = names.length * 4;
    own.set('flags', flags.bytes);
  }

  const { trainedBytes } = layout;
  const limit = Math.floor(traits.maxBindingBytes / 256) * 256;
  /** A range of the flat buffers in pieces that can be bound. */
  const pieces = (from: number, to: number): [offset: number, bytes: number][] => {
    const out: [number, number][] = [];
    for (let at = from; at < to; at += limit) out.push([at, Math.min(limit, to - at)]);
    return out;
  };

  const accumulate = options.accumulate ?? 1;
  if (accumulate > 1) own.set('accumulated', trainedBytes);
  const summed = accumulate > 1 ? 'accumulated' : 'gradients';
  if (accumulate > 1)
    for (const [offset, bytes] of pieces(0, trainedBytes)) {
      const sum = flat('accumulated', offset, bytes);
      const gradients = flat('gradients', offset, bytes);
      calls.push(...accumulateGradients({ length: bytes / 4, sum, gradients, step }, 1 / accumulate));
    }
  const running = pieces(trainedBytes, layout.gradientBytes).flatMap(([offset, bytes]) =>
    runningUpdate(
      {
        length: bytes / 4,
        weights: flat('weights', offset, bytes),
        statistics: flat('gradients', offset, bytes),
        step,
      },
      RUNNING_MOMENTUM,
      accumulate === 1,
    ),
  );
  if (accumulate > 1) calls.push(...running);
  const update = calls.length;

  const dynamic = options.lossScale === 'dynamic';
  let parts: Slot | undefined;
  const ranges = pieces(0, trainedBytes);
  if (options.clipNorm !== undefined || dynamic) {
    parts = { bytes: ranges.length * NORM_PARTS * 16 };
    ranges.forEach(([offset, bytes], k) => {
      calls.push(
        ...squareSums({
          length: bytes / 4,
          gradients: flat(summed, offset, bytes),
          parts: parts!,
          first: k * NORM_PARTS,
        }),
      );
    });
  }
  const partCount = ranges.length * NORM_PARTS;
  calls.push(...decideStep({ step, parts, partCount }, { clipNorm: options.clipNorm, dynamic }));
  const moments = momentsOf(trainable.optimizer);
  for (const decay of [true, false]) {
    const range = decay ? pieces(0, layout.ends.decay) : pieces(layout.ends.decay, trainedBytes);
    for (const [offset, bytes] of range) {
      const at = (buffer: string) => flat(buffer, offset, bytes);
      calls.push(
        ...optimizerUpdate(
          {
            length: bytes / 4,
            weights: at('weights'),
            gradients: at(summed),
            moments: Array.from({ length: moments }, (_, k) => at(`moment${k}`)),
            ema: trainable.ema === undefined ? undefined : at('ema'),
            step,
          },
          trainable.optimizer,
          decay,
          trainable.ema,
        ),
      );
    }
  }
  if (accumulate === 1) calls.push(...running);
  return { graph, calls, update, slotOf, own, names };
}

/**
 * Appends the backward pass and says where each parameter's gradient goes: into the flat gradients, at the
 * parameter's offset. The "gradient" of a running average is the statistic of the batch.
 */
function placeGradients(
  graph: Graph,
  lossName: string,
  layout: FlatLayout,
  recompute: boolean,
): { placed: Map<number, Slot>; copies: Map<number, number> } {
  const forward = [...graph.nodes];
  const parameters = forward.filter((n) => n.op === 'parameter');
  const groupOf = (name: string, shape: readonly number[]) => layout.get(name, shape).group;
  const trained = parameters.filter((n) => ['decay', 'noDecay'].includes(groupOf(n.name!, n.shape)));
  const lossId = graph.outputs.get(lossName)!;
  const loss = { id: lossId, shape: graph.node(lossId).shape };
  const { gradients, copies } = gradient(graph, loss, trained, recompute ? isMeeting : undefined);
  for (const n of trained)
    if (!gradients.has(n.id))
      throw new WfrError(
        `${graph.name}: ${lossName} does not depend on ${n.name}; freeze it or leave it out.`,
      );
  for (const n of forward) {
    if (n.op !== 'batchNormStatistics') continue;
    const owner = { id: n.id, shape: n.shape };
    [3, 4].forEach((input, index) => {
      const p = graph.node(n.inputs[input]);
      if (gradients.has(p.id))
        throw new WfrError(`${graph.name}: two norms share the running average ${p.name}.`);
      gradients.set(p.id, graph.part(owner, index, p.shape));
    });
  }
  const placed = new Map<number, Slot>();
  for (const [id, t] of gradients) {
    const { name, shape } = graph.node(id);
    const p = layout.get(name!, shape);
    if (placed.has(t.id))
      throw new WfrError(`${graph.name}: ${name} has the same gradient as another parameter.`);
    placed.set(t.id, { bytes: p.bytes, flat: { buffer: 'gradients', offset: p.offset } });
  }
  return { placed, copies };
}

/** Values that recomputation starts from: sums of residual branches, and what is no map and so small. */
const isMeeting = (n: Node): boolean =>
  n.shape.length !== 4 || n.op === 'add' || (n.attributes.hasResidual ?? false);

/** All nodes that the given ones depend on. */
function neededFor(graph: Graph, roots: readonly number[]): Set<number> {
  const needed = new Set(roots);
  for (let id = graph.nodes.length - 1; id >= 0; id--)
    if (needed.has(id)) for (const input of graph.node(id).inputs) needed.add(input);
  return needed;
}

/** Ops whose kernels take and give maps of either storage. */
const MAP_OPS = new Set<OpName>([
  'conv2d',
  'dense',
  'batchNormStatistics',
  'batchNormApply',
  'batchNormConv2d',
  'prelu',
  'relu',
  'add',
  'maxPool',
  'avgPool',
  'globalAvgPool',
  'dropout',
  'flip',
  'flatten',
]);

/** Forward maps that only such ops use: no input, no output, nothing a loss reads. */
function storedAsHalves(graph: Graph, forwardCount: number): Set<number> {
  const forward = graph.nodes.slice(0, forwardCount);
  const out = new Set(forward.filter((n) => n.shape.length === 4 && MAP_OPS.has(n.op)).map((n) => n.id));
  for (const id of graph.outputs.values()) out.delete(id);
  for (const n of forward) if (!MAP_OPS.has(n.op)) for (const id of n.inputs) out.delete(id);
  return out;
}
