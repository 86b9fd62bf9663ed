import { WfrError } from '../gpu/errors.js';
import type { Gpu } from '../gpu/gpu.js';
import type { Graph } from '../graph/graph.js';
import type { ParameterValue } from '../graph/parameters.js';
import { TrainableParameters } from '../graph/trainable.js';
import { planTraining, type StepStatus, type TrainingMemory, TrainingStep } from '../graph/training.js';
import type { Batch, DataOrigin, DataSource } from './data/source.js';
import { distillFigures, identityFigures, meanOf } from './figures.js';
import { HEAD, initialWeights, sampleClasses, sampledClasses } from './objective.js';
import { Random } from './random.js';
import {
  dataDifferences,
  graphOf,
  type Recipe,
  recipeDifferences,
  stepOptions,
  trainableOptions,
} from './recipe.js';
import { learningRate } from './schedule.js';
import type { CheckpointSink, RunOptions, StepReport, TrainerOptions } from './trainer_options.js';

export type { CheckpointSink, RunOptions, StepReport, TrainerOptions } from './trainer_options.js';

/** What a checkpoint keeps beside the buffers. */
type RunState = { recipe: Recipe; data?: DataOrigin };

/** What a batch tells of itself. */
type Figures = Omit<StepReport, 'step' | 'epoch' | 'learningRate' | 'seconds' | 'waited'>;

/** A batch that the device has. */
interface Flight {
  batch: Batch;
  /** Its number in the run. */
  index: number;
  figures: Promise<Figures & { status: StepStatus }>;
}

const ADVICE =
  'Begin again with a lower --lr in a new --out, clip gradients (--clip 5), lengthen the warm-up, or look at the pictures of that batch.';

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
    requireStep(recipe, source);
    const graph = graphOf(recipe, source);
    const { values, missing } = initialWeights(graph, recipe.seed, options.init, options.initName);
    const parameters = TrainableParameters.create(gpu, graph, values, trainableOptions(recipe));
    try {
      const { detectAnomaly } = options;
      const how = { ...stepOptions(recipe), detectAnomaly };
      const compiled = await TrainingStep.compile(gpu, graph, 'loss', parameters, how);
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

  /** No whole number where accumulated batches of one step are of two epochs. */
  get stepsPerEpoch(): number {
    return this.source.stepsPerEpoch / (this.recipe.accumulate ?? 1);
  }

  /** Steps of the whole recipe. */
  get steps(): number {
    return Math.max(1, Math.round(this.stepsPerEpoch * this.recipe.epochs));
  }

  /** Epochs whose last batch was used by then. */
  epochsAfter(step: number): number {
    return Math.floor((step * (this.recipe.accumulate ?? 1)) / this.source.stepsPerEpoch);
  }

  endsEpoch(step: number): boolean {
    return this.epochsAfter(step) > this.epochsAfter(step - 1);
  }

  /** The epoch that a step ends or, at the end of a run, breaks off. */
  epochOf(step: number): number {
    return this.epochsAfter(step) + (this.endsEpoch(step) ? 0 : 1);
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

  /**
   * Continues where a checkpoint stands.
   * @returns whether the checkpoint says what data it was trained on; what earlier versions wrote does not.
   * @throws WfrError when it is of another recipe or other data.
   */
  restore({ step, state, buffers }: NonNullable<Awaited<ReturnType<CheckpointSink['latest']>>>): boolean {
    const { recipe, data } = state as unknown as RunState;
    const differing = recipeDifferences(recipe, this.recipe);
    const { origin } = this.source;
    if (data && origin) differing.push(...dataDifferences(data, origin));
    if (differing.length > 0)
      throw new WfrError(
        `The checkpoint is of another run: ${differing.join(', ')} ${differing.length > 1 ? 'differ' : 'differs'}. Resume with the same options and data, or begin anew with --init and its weights.`,
      );
    this.parameters.restore(buffers);
    this.#step = step;
    return data !== undefined;
  }

  async checkpoint(): Promise<void> {
    await this.options.checkpoints?.save({
      step: this.#step,
      state: { recipe: this.recipe, data: this.source.origin } satisfies RunState,
      buffers: await this.parameters.snapshot(),
    });
  }

  /**
   * Trains to the end of the recipe.
   * @throws DivergedError when the loss stops being a number; the checkpoints before it are whole.
   */
  async run(options: RunOptions = {}): Promise<void> {
    const { signal, until = Number.POSITIVE_INFINITY, inFlight = 2, onStep, onEpoch } = options;
    const end = Math.min(this.steps, until);
    const accumulate = this.recipe.accumulate ?? 1;
    const every = this.options.checkpointEvery ?? 500;
    const batches = this.source.batches(this.#step * accumulate);
    let saved = this.#step;
    const checkpoint = async () => {
      if (saved !== this.#step) await this.checkpoint();
      saved = this.#step;
    };
    // Something to go back to when the first steps diverge.
    if (this.#step === 0) await this.checkpoint();
    // The device gets the next batch while it works on the one before; not past a step after which weights are read.
    const readAfter = (step: number) =>
      step === end || step % every === 0 || (onEpoch && this.endsEpoch(step));
    const most = this.options.detectAnomaly ? 1 : inFlight;
    const flights: Flight[] = [];
    let next = this.#step * accumulate;
    const mayBegin = () => {
      if (flights.length >= most || next >= end * accumulate) return false;
      // A step that was begun is made whole.
      if (next % accumulate > 0) return true;
      return !signal?.aborted && (flights.length === 0 || !readAfter(next / accumulate));
    };
    let micro: Figures[] = [];
    let waited = 0;
    let started = performance.now();
    try {
      while (true) {
        while (mayBegin()) {
          const asked = performance.now();
          const batch = (await batches.next()).value as Batch;
          waited += performance.now() - asked;
          const figures = this.#runBatch(this.compiled, batch, next);
          // It is awaited in its turn; until then a failure must not count as unhandled.
          figures.catch(() => {});
          flights.push({ batch, index: next, figures });
          next++;
        }
        const flight = flights.shift();
        if (!flight) break;
        const { batch, index } = flight;
        const { status, ...figures } = await flight.figures;
        if (this.options.detectAnomaly) await this.#watched(batch);
        if (!Number.isFinite(figures.loss)) throw await this.#diverged(batch);
        micro.push(figures);
        if ((index + 1) % accumulate > 0) continue;
        // A NaN may die in a max() before it reaches the loss, but not before the gradients.
        if (status.skipped > 0) throw await this.#diverged(batch);
        const learningRate = this.rateAt(this.#step);
        this.#step++;
        const now = performance.now();
        await onStep?.({
          ...meanOf(micro),
          step: this.#step,
          epoch: (this.#step - 1) / this.stepsPerEpoch,
          learningRate,
          seconds: (now - started) / 1000,
          waited: waited / 1000,
        });
        started = performance.now();
        [micro, waited] = [[], 0];
        if (this.#step % every === 0 && this.#step < end) await checkpoint();
        if (onEpoch && (this.#step === end || this.endsEpoch(this.#step))) {
          // Whatever becomes of what is done there, the epoch is not lost.
          await checkpoint();
          await onEpoch(this.epochOf(this.#step), this.#step);
          started = performance.now();
        }
      }
      await checkpoint();
    } finally {
      // After an error: what the device has, it does.
      await Promise.allSettled(flights.map(({ figures }) => figures));
      this.#step += flights.filter(({ index }) => (index + 1) % accumulate === 0).length;
      await batches.return?.();
    }
  }

  /** The net's weights as they are now, or their moving average where one is kept. */
  async weights(which?: 'weights' | 'ema'): Promise<Map<string, ParameterValue>> {
    const all = await this.parameters.read(which ?? (this.recipe.ema === undefined ? 'weights' : 'ema'));
    return new Map([...all].filter(([name]) => !name.startsWith(HEAD)));
  }

  /** @param index of the batch in the run: of it and the seed come the learning rate and what is drawn. */
  async #runBatch(
    compiled: TrainingStep,
    batch: Batch,
    index: number,
  ): Promise<Figures & { status: StepStatus }> {
    const { recipe, source } = this;
    const learningRate = this.rateAt(Math.floor(index / (recipe.accumulate ?? 1)));
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
    const { out, status } = await compiled.runWithStatus({ learningRate, seed: index }, read);
    return {
      status,
      loss: out.loss[0],
      ...identityFigures(out.identityRows, batch.labels),
      ...distillFigures(out.distillRows),
    };
  }

  /** @throws DivergedError when a value of the batch just run was not finite. */
  async #watched(batch: Batch): Promise<void> {
    const layer = await this.compiled.firstAnomaly();
    if (layer !== undefined)
      throw new DivergedError(
        `The first value that is not finite is in ${layer}, at step ${this.#step + 1} (pictures ${this.#namesOf(batch)}). ${ADVICE}`,
      );
  }

  #namesOf({ pictures }: Batch): string {
    const first = [...pictures.slice(0, 3)].map((p) => this.source.nameOf(p)).join(', ');
    return pictures.length > 3 ? `${first}, …` : first;
  }

  /** Goes back to the last checkpoint and repeats its steps while watching every layer. */
  async #diverged(batch: Batch): Promise<Error> {
    const accumulate = this.recipe.accumulate ?? 1;
    const where = `step ${this.#step + 1} (pictures ${this.#namesOf(batch)})`;
    const last = await this.options.checkpoints?.latest();
    if (!last)
      return new DivergedError(`The loss or its gradient is no number any more at ${where}. ${ADVICE}`);
    this.parameters.restore(last.buffers);
    const options = { ...stepOptions(this.recipe), detectAnomaly: true };
    const watching = await TrainingStep.compile(this.gpu, this.graph, 'loss', this.parameters, options);
    try {
      const batches = this.source.batches(last.step * accumulate);
      for (let i = last.step * accumulate; i < (this.#step + 1) * accumulate; i++) {
        const repeated = (await batches.next()).value as Batch;
        await this.#runBatch(watching, repeated, i);
        const layer = await watching.firstAnomaly();
        if (layer === undefined) continue;
        return new DivergedError(
          `The loss or its gradient is no number any more at ${where}. The first value that is not finite is in ${layer}, at step ${Math.floor(i / accumulate) + 1} (pictures ${this.#namesOf(repeated)}). The checkpoint of step ${last.step} is whole. ${ADVICE}`,
        );
      }
      return new DivergedError(
        `The loss or its gradient is no number at ${where}, but repeating from step ${last.step} did not show where. ${ADVICE}`,
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

/** @throws WfrError when all batches of the run together do not make a step. */
function requireStep({ accumulate = 1, epochs }: Recipe, { stepsPerEpoch }: DataSource): void {
  const batches = stepsPerEpoch * epochs;
  if (accumulate > 1 && batches < accumulate)
    throw new WfrError(
      `The run has ${Number(batches.toFixed(1))} batches, a step takes ${accumulate} (accumulate): not one step can be made. Accumulate fewer batches, make them smaller, or train for more epochs.`,
    );
}
