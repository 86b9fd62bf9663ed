import { WfrError } from '../gpu/errors.js';
import type { Gpu } from '../gpu/gpu.js';
import type { Graph } from '../graph/graph.js';
import type { ParameterValue } from '../graph/parameters.js';
import { type TrainableOptions, TrainableParameters } from '../graph/trainable.js';
import { planTraining, type TrainingMemory, type TrainingOptions, TrainingStep } from '../graph/training.js';
import type { OptimizerConfig } from '../kernels/optimizer/update.js';
import { type RecogniserDescription, recogniserOf } from '../nets/registry.js';
import { type Batch, type DataSource, UNLABELLED } from './data/source.js';
import { HEAD, initialWeights, type Objective, sampledClasses, trainingGraph } from './objective.js';
import { Random } from './random.js';
import { learningRate, type Schedule } from './schedule.js';

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
  /** Weights whose names begin so stay as they are. */
  freeze?: readonly string[];
}

/** Where checkpoints go and come from: files in Node (CheckpointStore), anything in a page. */
export interface CheckpointSink {
  save(checkpoint: {
    step: number;
    state: Record<string, unknown>;
    buffers: Record<string, ArrayBuffer>;
  }): Promise<unknown>;
  latest(): Promise<
    { step: number; state: Record<string, unknown>; buffers: Record<string, ArrayBuffer> } | undefined
  >;
}

/** What is known after a step. */
export interface StepReport {
  /** Steps done. */
  step: number;
  epoch: number;
  learningRate: number;
  loss: number;
  /** Share of the batch's labelled pictures whose nearest class is their own. */
  accuracy?: number;
  /** Cross-entropy over identities. */
  identityLoss?: number;
  /** 1 − cosine to the teacher, mean over the batch. */
  distance?: number;
  /** Mean squared difference of similarities. */
  relation?: number;
  /** Since the step before, waiting for data included. */
  seconds: number;
  /** Of them, spent waiting for data. */
  waited: number;
}

export interface TrainerOptions {
  /** Weights to begin with, by name; what they lack is initialised. */
  init?: ReadonlyMap<string, ParameterValue>;
  checkpoints?: CheckpointSink;
  /** Steps between checkpoints. Default 500. */
  checkpointEvery?: number;
}

export interface RunOptions {
  /** Stops after the step in hand, with a checkpoint. */
  signal?: AbortSignal;
  /** Stop after this step, as if the run were that long; the schedule does not change. */
  until?: number;
  onStep?: (report: StepReport) => void | Promise<void>;
  /** After each epoch and at the end. */
  onEpoch?: (epoch: number, step: number) => void | Promise<void>;
}

/** Thrown when a loss is not finite: names the batch and the first layer where it went wrong. */
export class DivergedError extends WfrError {}

/**
 * Trains a recogniser: batches from a source through a compiled training step, checkpoints that continue to the same
 * numbers bit for bit, and a search for the first layer that went wrong when the loss is no number.
 */
export class Trainer {
  #step = 0;

  private constructor(
    private readonly gpu: Gpu,
    readonly recipe: Recipe,
    private readonly source: DataSource,
    private readonly graph: Graph,
    readonly parameters: TrainableParameters,
    private readonly compiled: TrainingStep,
    private readonly options: TrainerOptions,
    /** Names that the weights to begin with did not have. */
    readonly missing: readonly string[],
  ) {}

  /** @throws WfrError when recipe and data do not fit; GpuError when the device cannot hold it. */
  static async create(
    gpu: Gpu,
    recipe: Recipe,
    source: DataSource,
    options: TrainerOptions = {},
  ): Promise<Trainer> {
    const graph = graphOf(recipe, source);
    const { values, missing } = initialWeights(graph, recipe.seed, options.init);
    const parameters = TrainableParameters.create(gpu, graph, values, trainableOptions(recipe));
    try {
      const compiled = await TrainingStep.compile(gpu, graph, 'loss', parameters, stepOptions(recipe));
      return new Trainer(gpu, recipe, source, graph, parameters, compiled, options, missing);
    } catch (error) {
      parameters.destroy();
      throw error;
    }
  }

  /** Bytes and floating-point operations of a step, before anything is allocated. */
  static plan(gpu: Gpu, recipe: Recipe, source: DataSource): TrainingMemory & { flops: number } {
    return planTraining(gpu, graphOf(recipe, source), 'loss', trainableOptions(recipe), stepOptions(recipe));
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  get stepsPerEpoch(): number {
    return Math.max(1, Math.floor(this.source.stepsPerEpoch / (this.recipe.accumulate ?? 1)));
  }

  /** Steps of the whole recipe. */
  get steps(): number {
    return Math.max(1, Math.round(this.stepsPerEpoch * this.recipe.epochs));
  }

  get memory(): TrainingMemory {
    return this.compiled.memory;
  }

  /** Floating-point operations of a step. */
  get flops(): number {
    return this.compiled.flops * (this.recipe.accumulate ?? 1);
  }

  rateAt(step: number): number {
    const { schedule } = this.recipe;
    const { steps, stepsPerEpoch } = this;
    const warmup = Math.round((schedule.warmupEpochs ?? 0) * stepsPerEpoch);
    return learningRate({ ...schedule, steps, stepsPerEpoch, warmup }, step);
  }

  /** Continues where a checkpoint stands. @throws WfrError when it is of another recipe. */
  restore({ step, state, buffers }: NonNullable<Awaited<ReturnType<CheckpointSink['latest']>>>): void {
    const differing = differences(state.recipe as Recipe, this.recipe);
    if (differing.length > 0)
      throw new WfrError(
        `The checkpoint is of another run: ${differing.join(', ')} differ. Resume with the same options, or begin anew with --init and its weights.`,
      );
    this.parameters.restore(buffers);
    this.#step = step;
  }

  async checkpoint(): Promise<void> {
    await this.options.checkpoints?.save({
      step: this.#step,
      state: { recipe: this.recipe },
      buffers: await this.parameters.snapshot(),
    });
  }

  /**
   * Trains to the end of the recipe.
   * @throws DivergedError when the loss stops being a number; the checkpoints before it are whole.
   */
  async run({ signal, until = Number.POSITIVE_INFINITY, onStep, onEpoch }: RunOptions = {}): Promise<void> {
    const end = Math.min(this.steps, until);
    const accumulate = this.recipe.accumulate ?? 1;
    const batches = this.source.batches(this.#step * accumulate);
    const every = this.options.checkpointEvery ?? 500;
    let saved = this.#step;
    // Something to go back to when the first steps diverge.
    if (this.#step === 0) await this.checkpoint();
    let started = performance.now();
    while (this.#step < end && !signal?.aborted) {
      const rate = this.rateAt(this.#step);
      let waited = 0;
      const micro: Omit<StepReport, 'step' | 'epoch' | 'learningRate' | 'seconds' | 'waited'>[] = [];
      for (let k = 0; k < accumulate; k++) {
        const asked = performance.now();
        const batch = (await batches.next()).value as Batch;
        waited += performance.now() - asked;
        const report = await this.#runBatch(this.compiled, batch, rate, this.#step * accumulate + k);
        if (!Number.isFinite(report.loss)) throw await this.#diverged(batch);
        micro.push(report);
        // A NaN may die in a max() before it reaches the loss, but not before the gradients.
        if (k === accumulate - 1 && (await this.compiled.status()).skipped > 0)
          throw await this.#diverged(batch);
      }
      this.#step++;
      const now = performance.now();
      await onStep?.({
        ...meanOf(micro),
        step: this.#step,
        epoch: (this.#step - 1) / this.stepsPerEpoch,
        learningRate: rate,
        seconds: (now - started) / 1000,
        waited: waited / 1000,
      });
      started = performance.now();
      if (this.#step % every === 0 && this.#step < end) {
        await this.checkpoint();
        saved = this.#step;
      }
      if (this.#step % this.stepsPerEpoch === 0 || this.#step === end) {
        await onEpoch?.(Math.ceil(this.#step / this.stepsPerEpoch), this.#step);
        started = performance.now();
      }
    }
    await batches.return?.();
    if (saved !== this.#step) await this.checkpoint();
  }

  /** The net's weights as they are now, or their moving average where one is kept. */
  async weights(which?: 'weights' | 'ema'): Promise<Map<string, ParameterValue>> {
    const all = await this.parameters.read(which ?? (this.recipe.ema === undefined ? 'weights' : 'ema'));
    return new Map([...all].filter(([name]) => !name.startsWith(HEAD)));
  }

  async #runBatch(compiled: TrainingStep, batch: Batch, rate: number, index: number) {
    const { recipe, source } = this;
    compiled.setInput('x', batch.x);
    const { identity, distill } = recipe.objective;
    if (identity) {
      const sizes = { ...recipe, classes: source.identities.length, teacherDimension: 0 };
      const sampled = sampledClasses(recipe.objective, sizes);
      if (sampled === undefined) compiled.setInput('labels', batch.labels);
      else {
        const random = Random.of(recipe.seed, 'classes', index);
        const chosen = sampleClasses(batch.labels, source.identities.length, sampled, random);
        compiled.setInput('selection', chosen.selection);
        compiled.setInput('labels', chosen.labels);
      }
    }
    if (distill) compiled.setInput('teacher', batch.teacher!);
    const read = ['loss', ...(identity ? ['identityRows'] : []), ...(distill ? ['distillRows'] : [])];
    const out = await compiled.run({ learningRate: rate, seed: index }, read);
    return {
      loss: out.loss[0],
      ...identityFigures(out.identityRows, batch.labels),
      ...distillFigures(out.distillRows),
    };
  }

  /** Goes back to the last checkpoint and repeats its steps while watching every layer. */
  async #diverged(batch: Batch): Promise<Error> {
    const accumulate = this.recipe.accumulate ?? 1;
    const names = [...batch.pictures.slice(0, 3)].map((p) => this.source.nameOf(p)).join(', ');
    const where = `step ${this.#step + 1} (pictures ${names}, …)`;
    const advice =
      'Lower --lr, clip gradients (--clip 5), lengthen the warm-up, or look at the pictures of that batch.';
    const last = await this.options.checkpoints?.latest();
    if (!last)
      return new DivergedError(`The loss or its gradient is no number any more at ${where}. ${advice}`);
    this.parameters.restore(last.buffers);
    const options = { ...stepOptions(this.recipe), detectAnomaly: true };
    const watching = await TrainingStep.compile(this.gpu, this.graph, 'loss', this.parameters, options);
    try {
      const batches = this.source.batches(last.step * accumulate);
      for (let i = last.step * accumulate; i < (this.#step + 1) * accumulate; i++) {
        const repeated = (await batches.next()).value as Batch;
        await this.#runBatch(watching, repeated, this.rateAt(Math.floor(i / accumulate)), i);
        const layer = await watching.firstAnomaly();
        if (layer === undefined) continue;
        const first = [...repeated.pictures.slice(0, 3)].map((p) => this.source.nameOf(p)).join(', ');
        return new DivergedError(
          `The loss or its gradient is no number any more at ${where}. The first value that is not finite is in ${layer}, at step ${Math.floor(i / accumulate) + 1} (pictures ${first}, …). The checkpoint of step ${last.step} is whole. ${advice}`,
        );
      }
      return new DivergedError(
        `The loss or its gradient is no number at ${where}, but repeating from step ${last.step} did not show where. ${advice}`,
      );
    } finally {
      watching.destroy();
    }
  }

  destroy(): void {
    this.compiled.destroy();
    this.parameters.destroy();
  }
}

function graphOf(recipe: Recipe, source: DataSource): Graph {
  const net = recogniserOf(recipe.net, recipe.description);
  if (!net) throw new WfrError(`There is no net ${recipe.net} to train: choose mobilefacenet or iresnet.`);
  return trainingGraph(net, recipe.objective, {
    batch: recipe.batch,
    size: recipe.size,
    classes: source.identities.length,
    teacherDimension: source.teacherDimension,
  });
}

function trainableOptions({ optimizer, freeze = [], ema }: Recipe): TrainableOptions {
  const frozen = (name: string) => freeze.some((prefix) => name.startsWith(prefix));
  return { optimizer, ema, frozen };
}

/** A norm that none passes asks for the norm, and with it for the check that gradients are finite. */
const UNCLIPPED = 1e30;

const stepOptions = ({ clip = UNCLIPPED, accumulate, precision, recompute }: Recipe): TrainingOptions => ({
  clipNorm: clip,
  accumulate,
  precision,
  recompute,
});

/** Keys of a recipe that are not as they were. */
function differences(a: Recipe, b: Recipe): string[] {
  const keys = new Set([...Object.keys(a ?? {}), ...Object.keys(b)]) as Set<keyof Recipe>;
  return [...keys].filter((key) => JSON.stringify(a?.[key]) !== JSON.stringify(b[key]));
}

/** The batch's own classes and others drawn at random, in rising order, and the labels as places among them. */
export function sampleClasses(
  labels: Uint32Array,
  classes: number,
  count: number,
  random: Random,
): { selection: Uint32Array; labels: Uint32Array } {
  const chosen = new Set([...labels].filter((y) => y < classes));
  // Robert Floyd's sampling would need no rejection, but the share is seldom above a half.
  while (chosen.size < count) chosen.add(random.below(classes));
  const selection = Uint32Array.from(chosen).sort();
  const place = new Map([...selection].map((c, i) => [c, i]));
  return { selection, labels: labels.map((y) => place.get(y) ?? UNLABELLED) };
}

function identityFigures(rows: Float32Array | undefined, labels: Uint32Array) {
  if (!rows) return {};
  let [known, hits, entropy] = [0, 0, 0];
  for (const [i, y] of labels.entries()) {
    if (y === UNLABELLED) continue;
    known++;
    entropy += rows[i * 4 + 2];
    hits += rows[i * 4 + 3];
  }
  return known > 0 ? { accuracy: hits / known, identityLoss: entropy / known } : {};
}

function distillFigures(rows: Float32Array | undefined) {
  if (!rows) return {};
  let [n, distance, square] = [0, 0, 0];
  for (let i = 0; i < rows.length; i += 3) {
    distance += rows[i];
    square += rows[i + 1];
    n += rows[i + 2];
  }
  return n > 0 ? { distance: distance / n, relation: square / n ** 2 } : {};
}

/** Means over the batches of a step; what not every batch has is averaged over those that have it. */
function meanOf<T extends object>(parts: readonly T[]): T {
  if (parts.length === 1) return parts[0];
  const keys = new Set(parts.flatMap((p) => Object.keys(p))) as Set<keyof T>;
  const mean = (key: keyof T) => {
    const values = parts.map((p) => p[key]).filter((v) => v !== undefined) as number[];
    return values.reduce((a, b) => a + b, 0) / values.length;
  };
  return Object.fromEntries([...keys].map((key) => [key, mean(key)])) as T;
}
