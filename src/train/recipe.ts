import { WfrError } from '../gpu/errors.js';
import { FlatLayout } from '../graph/flat_layout.js';
import type { Graph } from '../graph/graph.js';
import type { TrainableOptions } from '../graph/trainable.js';
import type { TrainingOptions } from '../graph/training.js';
import type { OptimizerConfig } from '../kernels/optimizer/update.js';
import { type RecogniserDescription, recogniserOf } from '../nets/registry.js';
import type { DataOrigin, DataSource } from './data/source.js';
import { netParameters, type Objective, trainingGraph } from './objective.js';
import type { Schedule } from './schedule.js';

/** What a run does, as plain data: kept in checkpoints, so that a resumed run can be held against it. */
export interface Recipe {
  /** `mobilefacenet` or `iresnet`, with what its metadata would say. */
  net: string;
  description: RecogniserDescription;
  /** Side of the pictures that the net sees in training. */
  size: number;
  batch: number;
  epochs: number;
  seed: number;
  objective: Objective;
  optimizer: OptimizerConfig;
  schedule: Pick<Schedule, 'kind' | 'rate' | 'power' | 'factor' | 'every' | 'final'> & {
    /** Epochs of linear warm-up. */
    warmupEpochs?: number;
  };
  /** Norm that gradients are scaled down to. */
  clip?: number;
  /** Batches whose gradients make one step. */
  accumulate?: number;
  /** Decay of the moving average of the weights; none without. */
  ema?: number;
  /** Storage of the forward maps; f16 takes half the memory. Default f32. */
  precision?: 'f32' | 'f16';
  /** Keep few maps and compute the others again in the backward pass. */
  recompute?: boolean;
  /** The run whose weights this one begins with, where one command makes both. */
  curriculum?: { size: number; epochs: number; rate?: number };
  /** Weights whose names begin with these parts (`blocks.1` is not `blocks.10`) stay as they are. */
  freeze?: readonly string[];
}

export function graphOf(recipe: Recipe, source: DataSource): Graph {
  const net = recogniserOf(recipe.net, recipe.description);
  if (!net) throw new WfrError(`There is no net ${recipe.net} to train: choose mobilefacenet or iresnet.`);
  const graph = trainingGraph(net, recipe.objective, {
    batch: recipe.batch,
    size: recipe.size,
    classes: source.identities.length,
    teacherDimension: source.teacherDimension,
  });
  requireFreezable(graph, recipe);
  return graph;
}

/** @throws WfrError when a prefix to freeze names nothing, or nothing is left to train. */
function requireFreezable(graph: Graph, recipe: Recipe): void {
  const names = netParameters(graph).map(({ name }) => name!);
  for (const prefix of recipe.freeze ?? [])
    if (prefix === '' || !names.some((name) => isWithin(name, prefix)))
      throw new WfrError(
        `There are no weights to freeze whose names begin with "${prefix}". The net has ${namesInShort(names)}.`,
      );
  if (new FlatLayout(graph, trainableOptions(recipe)).trainedBytes === 0)
    throw new WfrError('Every weight is frozen: nothing is left to train.');
}

/** Whether a name begins with these parts, as parted by dots. */
const isWithin = (name: string, prefix: string): boolean => name === prefix || name.startsWith(`${prefix}.`);

/** Where names of weights begin, numbered ones together: `stem, blocks.0–14, head`. */
function namesInShort(names: readonly string[]): string {
  const last = new Map<string, number>();
  for (const name of names) {
    const [first, second] = name.split('.');
    const number = /^\d+$/.test(second) ? Number(second) : -1;
    last.set(first, Math.max(last.get(first) ?? -1, number));
  }
  const ranges = [...last].map(([name, n]) => (n < 0 ? name : n === 0 ? `${name}.0` : `${name}.0–${n}`));
  return ranges.join(', ');
}

export function trainableOptions({ optimizer, freeze = [], ema }: Recipe): TrainableOptions {
  const frozen = (name: string) => freeze.some((prefix) => isWithin(name, prefix));
  return { optimizer, ema, frozen };
}

/** A norm that none passes asks for the norm, and with it for the check that gradients are finite. */
const UNCLIPPED = 1e30;

export const stepOptions = ({
  clip = UNCLIPPED,
  accumulate,
  precision,
  recompute,
}: Recipe): TrainingOptions => ({
  clipNorm: clip,
  accumulate,
  precision,
  recompute,
});

/** Schedules whose rate at a step does not depend on how long the run is. */
const OPEN_ENDED: readonly string[] = ['constant', 'step'];

/**
 * Holds a checkpoint's recipe against the one that is to go on with it. More epochs are no difference where the schedule
 * does not depend on their number.
 * @returns names of the parts that differ.
 * @throws WfrError when nothing differs but the epochs.
 */
export function recipeDifferences(then: Recipe, now: Recipe): string[] {
  if (then?.epochs === now.epochs || !then?.schedule) return differences(then, now);
  // The usual warm-up is a share of the epochs.
  const { warmupEpochs } = then.schedule;
  const isExtended =
    differences(then, { ...now, epochs: then.epochs, schedule: { ...now.schedule, warmupEpochs } }).length ===
    0;
  if (!isExtended) return differences(then, now);
  const isSameWarmup = (warmupEpochs ?? 0) === (now.schedule.warmupEpochs ?? 0);
  if (now.epochs > then.epochs && OPEN_ENDED.includes(now.schedule.kind) && isSameWarmup) return [];
  throw new WfrError(
    `The run was planned for ${then.epochs} ${then.epochs === 1 ? 'epoch' : 'epochs'}, and its rates with it (${then.schedule.kind}): it cannot be resumed with ${now.epochs}. Begin a new run with its weights instead (--init weights.safetensors and a new --out). Only runs with a constant or step schedule can be resumed with more epochs.`,
  );
}

/** What is not as it was of the pictures, as a message names it. */
export function dataDifferences(then: DataOrigin, now: DataOrigin): string[] {
  const sorted = (a: object) => JSON.stringify(Object.entries(a ?? {}).sort(([x], [y]) => (x < y ? -1 : 1)));
  const count = (o: DataOrigin) => `${o.pictures} pictures of ${o.identities} people`;
  const out: string[] = [];
  if (sorted(then.augmentation) !== sorted(now.augmentation)) out.push('augmentation');
  if (then.data !== now.data)
    out.push(
      count(then) === count(now)
        ? `data (${count(now)} as before, but others)`
        : `data (${count(then)} before, ${count(now)} now)`,
    );
  if (then.teacher !== now.teacher) {
    const how = !then.teacher ? 'none before' : !now.teacher ? 'none now' : 'other embeddings';
    out.push(`teacher (${how})`);
  } else if (then.teacher) {
    const [before, after] = [then.teacherMean ?? 1, now.teacherMean ?? 1];
    if (before !== after) out.push(`share of the teacher's mean (${before} before, ${after} now)`);
  }
  return out;
}

/** Keys of plain data that are not as they were. */
export function differences<T extends object>(a: T | undefined, b: T): string[] {
  const keys = new Set([...Object.keys(a ?? {}), ...Object.keys(b)]) as Set<keyof T & string>;
  return [...keys].filter((key) => JSON.stringify(a?.[key]) !== JSON.stringify(b[key]));
}
