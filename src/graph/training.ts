import { WfrError } from '../gpu/errors.js';
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import { Pace } from '../gpu/pace.js';
import { Program } from '../gpu/program.js';
import { WORD } from '../kernels/optimizer/step_words.js';
import { channelsOf, pad, product, quads, rowsOf, unpad } from '../kernels/tensor.js';
import { FlatLayout } from './flat_layout.js';
import type { Graph } from './graph.js';
import type { MemoryPlan } from './memory.js';
import { placeInArena, type Slot } from './slots.js';
import {
  flatBuffers,
  INITIAL_LOSS_SCALE,
  type TrainableOptions,
  type TrainableParameters,
} from './trainable.js';
import { lowerTraining, type TrainingCalls, type TrainingOptions } from './training_calls.js';

export type { TrainingOptions } from './training_calls.js';

export interface TrainingMemory {
  /** Intermediates, placed by their lifetimes. */
  arena: number;
  /** Weights, gradients and optimiser state. */
  parameters: number;
  /** Inputs, outputs and what else a step keeps. */
  other: number;
  total: number;
}

/**
 * What a training step will take, before anything is allocated.
 * @throws WfrError when the graph cannot be trained.
 */
export function planTraining(
  gpu: Gpu,
  graph: Graph,
  loss: string,
  parameters: TrainableOptions,
  options: TrainingOptions = {},
): TrainingMemory & { flops: number } {
  const layout = new FlatLayout(graph, parameters);
  const t = lowerTraining(gpu.traits, graph, loss, layout, parameters, options);
  const { plan } = placeInArena(t.calls, gpu.device.limits.minStorageBufferOffsetAlignment);
  return { ...memoryOf(t, plan, layout, parameters), flops: flopsOf(t.calls) };
}

function memoryOf(
  t: TrainingCalls,
  plan: MemoryPlan,
  layout: FlatLayout,
  options: TrainableOptions,
): TrainingMemory {
  const parameters = Object.values(flatBuffers(layout, options)).reduce((a, b) => a + b, 0);
  let other = 0;
  for (const bytes of t.own.values()) other += bytes;
  for (const slot of new Set(t.calls.flatMap((c) => c.buffers.map((b) => b.ref))))
    if (slot.persistent) other += slot.bytes;
  return { arena: plan.bytes, parameters, other, total: plan.bytes + parameters + other };
}

const flopsOf = (calls: readonly KernelCall<unknown>[]): number => calls.reduce((sum, c) => sum + c.flops, 0);

/** What a step is told. */
export interface StepValues {
  learningRate: number;
  /** Of dropout; by default the number of the run. */
  seed?: number;
}

/** Where a run of steps stands; kept on the GPU. */
export interface StepStatus {
  /** Updates made. */
  step: number;
  lossScale: number;
  /** Steps left out because a gradient was not finite. */
  skipped: number;
  /** Norm of all gradients in the last step before clipping; 0 where neither clipping nor a dynamic scale asks for it. */
  gradientNorm: number;
}

interface Io {
  shape: readonly number[];
  dtype: FloatType | 'u32';
  range: BufferRange;
}

/**
 * Forward pass, backward pass and optimiser of one batch size as one recorded program: a run uploads the inputs and a
 * few words, submits once, and reads back only what it is asked for.
 */
export class TrainingStep {
  #runs = 0;
  readonly #pace = new Pace();
  /** Batches accumulated since the last update. */
  #pending = 0;

  private constructor(
    private readonly gpu: Gpu,
    private readonly calls: TrainingCalls,
    readonly program: Program,
    private readonly parameters: TrainableParameters,
    private readonly inputs: ReadonlyMap<string, Io>,
    private readonly outputs: ReadonlyMap<string, Io>,
    private readonly owned: readonly GPUBuffer[],
    private readonly flags: BufferRange | undefined,
    readonly memory: TrainingMemory,
    private readonly accumulate: number,
  ) {}

  /**
   * @param graph built for training. Its outputs can be read after each run and keep memory of their own.
   * @param loss the output to minimise, one number.
   * @throws WfrError when the graph cannot be trained or does not fit the parameters; GpuError when the device cannot
   *   run or hold it.
   */
  static async compile(
    gpu: Gpu,
    graph: Graph,
    loss: string,
    parameters: TrainableParameters,
    options: TrainingOptions = {},
  ): Promise<TrainingStep> {
    gpu.check();
    const t = lowerTraining(gpu.traits, graph, loss, parameters.layout, parameters.options, options);
    const { plan, offsets } = placeInArena(t.calls, gpu.device.limits.minStorageBufferOffsetAlignment);
    const owned: GPUBuffer[] = [];
    const make = (bytes: number, label: string): GPUBuffer => {
      const buffer = gpu.createStorage(bytes, label);
      owned.push(buffer);
      return buffer;
    };
    const { lossScale } = options;
    if (lossScale !== undefined)
      parameters.beginLossScale(lossScale === 'dynamic' ? INITIAL_LOSS_SCALE : lossScale);
    try {
      const arena = plan.bytes > 0 ? make(plan.bytes, `${graph.name}/training arena`) : undefined;
      const flat = new Map(parameters.buffers);
      for (const [name, bytes] of t.own) flat.set(name, make(bytes, `${graph.name}/${name}`));
      const rangeOf = (slot: Slot): BufferRange => {
        if (!slot.range) {
          const { bytes: size, flat: place, persistent } = slot;
          if (place) slot.range = { buffer: flat.get(place.buffer)!, offset: place.offset, size };
          else if (persistent)
            slot.range = { buffer: make(size, persistent), offset: 0, size: Math.max(16, size) };
          else slot.range = { buffer: arena!, offset: offsets.get(slot)!, size };
        }
        return slot.range;
      };
      const calls = t.calls.map(
        (call): KernelCall<BufferRange> => ({
          ...call,
          buffers: call.buffers.map((b) => ({ ...b, ref: rangeOf(b.ref) })),
        }),
      );
      // Read-only where nothing in the same dispatch writes the buffer.
      const constant = new Set([flat.get('weights'), flat.get('step')]);
      const program = await Program.create(gpu, calls, (range) => constant.has(range.buffer));
      const io = (id: number): Io => ({
        shape: t.graph.node(id).shape,
        dtype: t.graph.node(id).attributes.dtype ?? 'f32',
        range: rangeOf(t.slotOf(id)),
      });
      const inputs = new Map(t.graph.nodes.filter((n) => n.op === 'input').map((n) => [n.name!, io(n.id)]));
      const outputs = new Map([...t.graph.outputs].map(([name, id]) => [name, io(id)]));
      const flags = flat.get('flags');
      const memory = memoryOf(t, plan, parameters.layout, parameters.options);
      return new TrainingStep(
        gpu,
        t,
        program,
        parameters,
        inputs,
        outputs,
        owned,
        flags && { buffer: flags, offset: 0, size: t.own.get('flags')! },
        memory,
        options.accumulate ?? 1,
      );
    } catch (error) {
      for (const buffer of owned) gpu.destroyBuffer(buffer);
      throw error;
    }
  }

  /**
   * Uploads an input in its logical shape, or with its channels padded as `pad` does it; labels as a Uint32Array. It
   * stays until it is set again, and may be set while a run is under way: that run has its own.
   */
  setInput(name: string, data: Float32Array | Uint32Array): void {
    const input = this.inputs.get(name);
    if (!input)
      throw new WfrError(
        `${this.calls.graph.name} has no input ${name}; it has ${[...this.inputs.keys()].join(', ')}.`,
      );
    const { shape, dtype, range } = input;
    const isPadded = dtype !== 'u32' && data.length === rowsOf(shape) * quads(channelsOf(shape)) * 4;
    if (data.length !== product(shape) && !isPadded)
      throw new WfrError(
        `${this.calls.graph.name}: input ${name} has ${data.length} values, [${shape}] needs ${product(shape)}.`,
      );
    if ((dtype === 'u32') !== data instanceof Uint32Array)
      throw new WfrError(
        `${this.calls.graph.name}: input ${name} takes a ${dtype === 'u32' ? 'Uint32Array' : 'Float32Array'}.`,
      );
    this.gpu.write(range.buffer, range.offset, dtype === 'u32' || isPadded ? data : pad(data, shape));
  }

  /**
   * One step: one submit. With `accumulate` k an update follows every k-th run. Runs may be begun before others have
   * ended; they are done in order.
   * @param read names of outputs to read back; none by default.
   */
  async run(values: StepValues, read: readonly string[] = []): Promise<Record<string, Float32Array>> {
    return (await this.runWithStatus(values, read)).out;
  }

  /** `run`, and where the steps stand after it, in one readback. */
  async runWithStatus(
    values: StepValues,
    read: readonly string[],
  ): Promise<{ out: Record<string, Float32Array>; status: StepStatus }> {
    this.gpu.check();
    const ranges = read.map((name) => {
      const output = this.outputs.get(name);
      if (!output)
        throw new WfrError(
          `${this.calls.graph.name} has no output ${name}; it has ${[...this.outputs.keys()].join(', ')}.`,
        );
      return output;
    });
    const words = new Uint32Array(4);
    const floats = new Float32Array(words.buffer);
    floats[WORD.learningRate] = values.learningRate;
    words[WORD.seed] = values.seed ?? this.#runs;
    floats[WORD.keep] = this.#pending > 0 ? 1 : 0;
    this.gpu.write(this.parameters.buffers.get('step')!, 0, words);
    if (this.flags) this.gpu.write(this.flags.buffer, 0, new Uint8Array(this.flags.size));
    this.#runs++;
    this.#pending = (this.#pending + 1) % this.accumulate;
    const end = this.#pending === 0 ? this.calls.calls.length : this.calls.update;
    const bytes = await this.gpu.runAndRead(
      (encoder) => this.program.record(encoder, 0, end),
      [...ranges.map((r) => r.range), this.#words],
      this.#pace,
    );
    return {
      out: Object.fromEntries(read.map((n, i) => [n, unpad(new Float32Array(bytes[i]), ranges[i].shape)])),
      status: statusOf(bytes[read.length]),
    };
  }

  get #words(): BufferRange {
    const buffer = this.parameters.buffers.get('step')!;
    return { buffer, offset: 0, size: buffer.size };
  }

  async status(): Promise<StepStatus> {
    const { buffer, offset, size } = this.#words;
    return statusOf(await this.gpu.read(buffer, offset, size));
  }

  /**
   * After a run of a step compiled with `detectAnomaly`: the first op, in the order of work, whose values were not
   * all finite, e.g. "conv2d layer1.0.conv1" or "gradient of batchNormApply bn1". Undefined when all were.
   */
  async firstAnomaly(): Promise<string | undefined> {
    if (!this.flags)
      throw new WfrError('Compile the training step with detectAnomaly to search for the layer.');
    const flags = new Uint32Array(await this.gpu.read(this.flags.buffer, 0, this.flags.size));
    const first = flags.findIndex((f) => f !== 0);
    return first < 0 ? undefined : this.calls.names[first];
  }

  /** Floating-point operations of a run with its update (a multiply-add counts as two). */
  get flops(): number {
    return flopsOf(this.calls.calls);
  }

  destroy(): void {
    this.program.destroy();
    for (const buffer of this.owned) this.gpu.destroyBuffer(buffer);
  }
}

function statusOf(bytes: ArrayBuffer): StepStatus {
  const words = new Uint32Array(bytes);
  const floats = new Float32Array(bytes);
  return {
    step: words[WORD.step],
    lossScale: floats[WORD.lossScale],
    skipped: words[WORD.skipped],
    gradientNorm: floats[WORD.norm],
  };
}
