import { WfrError } from '../gpu/errors.js';
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import { Pace } from '../gpu/pace.js';
import { Program } from '../gpu/program.js';
import { Upload } from '../gpu/upload.js';
import { channelsOf, type Operand, pad, product, quads, rowsOf, unpad } from '../kernels/tensor.js';
import { Arena } from './arena.js';
import { fuse } from './fuse.js';
import type { Graph } from './graph.js';
import { LOWERINGS } from './lower.js';
import type { MemoryPlan } from './memory.js';
import type { ParameterStore, ParameterValues } from './parameters.js';
import { type Lowered, lower, placeInArena, type Slot } from './slots.js';

export interface CompileOptions {
  /** Fold batch norm and fuse bias, activation and residual into convolutions. Default true. */
  fuse?: boolean;
  /** Storage of intermediates and convolution weights; inputs, outputs and sums stay f32. Default f32. */
  precision?: FloatType;
  /** Scratch memory to share with other executables on the same device; its own by default. */
  arena?: Arena;
}

/**
 * Turns a graph into recorded work for one device: fused, lowered to kernel calls, every intermediate placed
 * in one arena by its lifetime, pipelines compiled in parallel, bind groups and uniforms prebuilt.
 *
 * @param store the weights on the GPU; `values` the same on the CPU, from which folded weights are derived.
 * @throws WfrError when a weight is missing or does not fit, GpuError when the device cannot run it.
 */
export async function compile(
  gpu: Gpu,
  source: Graph,
  store: ParameterStore,
  values: ParameterValues,
  options: CompileOptions = {},
): Promise<Executable> {
  gpu.check();
  const { graph, derived } =
    options.fuse === false ? { graph: source, derived: undefined } : fuse(source, values, gpu.traits);
  const lowered = lowerWith(gpu, graph, store, derived, options.precision ?? 'f32');
  const { plan, offsets } = placeInArena(lowered.calls, gpu.device.limits.minStorageBufferOffsetAlignment);
  const arenas = options.arena ?? new Arena(gpu, `${graph.name}/arena`);
  const owned: GPUBuffer[] = [];
  let arena: GPUBuffer | undefined;
  const release = () => {
    for (const buffer of owned) gpu.destroyBuffer(buffer);
    if (arena) arenas.release(arena);
  };
  try {
    if (plan.bytes > 0) arena = arenas.acquire(plan.bytes);
    const rangeOf = (slot: Slot): BufferRange => {
      if (!slot.range && slot.persistent) {
        const buffer = gpu.createStorage(slot.bytes, slot.persistent);
        owned.push(buffer);
        slot.range = { buffer, offset: 0, size: slot.bytes };
      }
      slot.range ??= { buffer: arena!, offset: offsets.get(slot)!, size: slot.bytes };
      return slot.range;
    };
    const calls = lowered.calls.map(
      (call): KernelCall<BufferRange> => ({
        ...call,
        buffers: call.buffers.map((b) => ({ ...b, ref: rangeOf(b.ref) })),
      }),
    );
    const program = await Program.create(gpu, calls, (range) => store.has(range));
    const io = (id: number): Operand<BufferRange> => ({
      ref: rangeOf(lowered.slotOf(id)),
      shape: graph.node(id).shape,
      dtype: 'f32',
    });
    const inputs = new Map(graph.nodes.filter((n) => n.op === 'input').map((n) => [n.name!, io(n.id)]));
    const outputs = new Map([...graph.outputs].map(([name, id]) => [name, io(id)]));
    const isOutgrown = () => arena !== undefined && arenas.isOutgrown(arena);
    return new Executable(gpu, graph, program, inputs, outputs, plan, release, isOutgrown);
  } catch (error) {
    release();
    throw error;
  }
}

/** Over slots, with weights from the store. */
function lowerWith(
  gpu: Gpu,
  graph: Graph,
  store: ParameterStore,
  derived: ParameterValues | undefined,
  precision: FloatType,
): Lowered {
  const persistent = new Set(graph.outputs.values());
  for (const n of graph.nodes) if (n.op === 'input') persistent.add(n.id);
  const parameters = new Map<BufferRange, Slot>();
  const slotOf = (range: BufferRange): Slot => {
    const slot = parameters.get(range) ?? { bytes: range.size, range };
    parameters.set(range, slot);
    return slot;
  };
  return lower(graph, {
    lowerings: LOWERINGS,
    traits: gpu.traits,
    precision,
    fixedWeights: true,
    dtypeOf: (id) => (persistent.has(id) ? 'f32' : precision),
    parameter: (id, packing) => {
      const { name, shape, attributes } = graph.node(id);
      return slotOf(store.get(name!, shape, attributes.layout!, packing, attributes.flatten, derived));
    },
    rows: (ids) =>
      slotOf(
        store.rows(
          ids.map((id) => graph.node(id)),
          derived,
        ),
      ),
  });
}

/** A compiled graph. Inputs and outputs have buffers of their own that persist between runs. */
export class Executable {
  readonly #uploads = new Map<string, Upload>();
  readonly #pace = new Pace();

  constructor(
    private readonly gpu: Gpu,
    readonly graph: Graph,
    readonly program: Program,
    readonly inputs: ReadonlyMap<string, Operand<BufferRange>>,
    readonly outputs: ReadonlyMap<string, Operand<BufferRange>>,
    readonly memory: MemoryPlan,
    private readonly release: () => void,
    /** Whether its scratch memory is kept for its sake alone, a larger size having brought a larger one. */
    readonly isOutgrown: () => boolean,
  ) {}

  /** Records the work into a caller's encoder; inputs must have been written before, outputs are read after. */
  record(encoder: GPUCommandEncoder): void {
    this.program.record(encoder);
  }

  /** Uploads an input given in its logical shape, channels unpadded. */
  setInput(name: string, data: Float32Array): void {
    const { shape, ref } = this.#inputOf(name, data);
    this.gpu.write(ref.buffer, ref.offset, pad(data, shape));
  }

  #inputOf(name: string, data: Float32Array): Operand<BufferRange> {
    const input = this.inputs.get(name);
    if (!input)
      throw new WfrError(
        `${this.graph.name} has no input ${name}; it has ${[...this.inputs.keys()].join(', ')}.`,
      );
    const { shape } = input;
    if (data.length !== product(shape)) {
      throw new WfrError(
        `${this.graph.name}: input ${name} has ${data.length} values, [${shape}] needs ${product(shape)}.`,
      );
    }
    return input;
  }

  /**
   * One upload, one submit, one readback.
   * @param inputs by name, in logical shape.
   * @param wanted names of the outputs to read; all by default.
   * @returns each output in its logical shape, channels unpadded.
   */
  async run(
    inputs: Readonly<Record<string, Float32Array>> = {},
    wanted?: readonly string[],
  ): Promise<Record<string, Float32Array>> {
    this.gpu.check();
    const filled: Upload[] = [];
    for (const [name, data] of Object.entries(inputs)) {
      const { shape, ref } = this.#inputOf(name, data);
      let upload = this.#uploads.get(name);
      if (!upload) {
        upload = new Upload(this.gpu, ref, `${this.graph.name}/${name}`);
        this.#uploads.set(name, upload);
      }
      // Of two runs at once the second finds it in use.
      if (upload.values === undefined) this.setInput(name, data);
      else {
        pad(data, shape, upload.values);
        filled.push(upload);
      }
    }
    const results = this.#recordAndRead((encoder) => {
      for (const upload of filled) upload.record(encoder);
      this.record(encoder);
    }, wanted);
    for (const upload of filled) upload.submitted();
    return results;
  }

  /** The same behind kernels that make the inputs: one submit, one readback. */
  async runAfter(
    calls: readonly KernelCall<BufferRange>[],
    wanted?: readonly string[],
  ): Promise<Record<string, Float32Array>> {
    const before = await Program.create(this.gpu, calls);
    try {
      return await this.#recordAndRead((encoder) => {
        before.record(encoder);
        this.record(encoder);
      }, wanted);
    } finally {
      before.destroy();
    }
  }

  async #recordAndRead(
    record: (encoder: GPUCommandEncoder) => void,
    wanted?: readonly string[],
  ): Promise<Record<string, Float32Array>> {
    const names = wanted ?? [...this.outputs.keys()];
    const outputs = names.map((name) => {
      const output = this.outputs.get(name);
      if (output) return output;
      const known = [...this.outputs.keys()].join(', ');
      throw new WfrError(`${this.graph.name} has no output ${name}; it has ${known}.`);
    });
    const values = await this.gpu.runAndTake(
      record,
      outputs.map(({ ref }) => ref),
      (bytes, at, i) => {
        const { shape } = outputs[i];
        const mapped = new Float32Array(bytes, at, rowsOf(shape) * quads(channelsOf(shape)) * 4);
        const own = unpad(mapped, shape);
        return own === mapped ? mapped.slice() : own;
      },
      this.#pace,
    );
    return Object.fromEntries(names.map((n, i) => [n, values[i]]));
  }

  /** Floating-point operations of a run (a multiply-add counts as two). */
  get flops(): number {
    return this.program.calls.reduce((sum, c) => sum + c.flops, 0);
  }

  destroy(): void {
    this.program.destroy();
    for (const upload of this.#uploads.values()) upload.destroy();
    this.release();
  }
}
