import { WfrError } from '../gpu/errors.js';
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import { Program } from '../gpu/program.js';
import { type Operand, pad, product, tensorBytes, unpad } from '../kernels/tensor.js';
import { Arena } from './arena.js';
import { fuse } from './fuse.js';
import type { Graph } from './graph.js';
import { LOWERINGS, type LowerContext } from './lower.js';
import { type Lifetime, type MemoryPlan, planMemory } from './memory.js';
import type { ParameterStore, ParameterValues } from './parameters.js';

export interface CompileOptions {
  /** Fold batch norm and fuse bias, activation and residual into convolutions. Default true. */
  fuse?: boolean;
  /** Storage of intermediates and convolution weights; inputs, outputs and sums stay f32. Default f32. */
  precision?: FloatType;
  /** Scratch memory to share with other executables on the same device; its own by default. */
  arena?: Arena;
}

/** A buffer before memory is planned: a block of the arena, or one of its own that outlives a run. */
interface Slot {
  bytes: number;
  /** Label of an input or output, which get buffers of their own. */
  persistent?: string;
  range?: BufferRange;
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
    options.fuse === false ? { graph: source, derived: undefined } : fuse(source, values);
  const lowered = lower(gpu, graph, store, derived, options.precision ?? 'f32');
  const { plan, offsets } = placeInArena(lowered.calls, gpu);
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
    return new Executable(gpu, graph, program, inputs, outputs, plan, release);
  } catch (error) {
    release();
    throw error;
  }
}

/** The kernel calls of a graph over slots; inputs and outputs are f32 and persistent. */
function lower(
  gpu: Gpu,
  graph: Graph,
  store: ParameterStore,
  derived: ParameterValues | undefined,
  precision: FloatType,
): { calls: KernelCall<Slot>[]; slotOf: (id: number) => Slot } {
  const outputs = new Set(graph.outputs.values());
  const isPersistent = (id: number) => outputs.has(id) || graph.node(id).op === 'input';
  const dtypeOf = (id: number): FloatType => (isPersistent(id) ? 'f32' : precision);
  const slots = new Map<number, Slot>();
  const slotOf = (id: number): Slot => {
    let slot = slots.get(id);
    if (!slot) {
      const { shape, name, op } = graph.node(id);
      slot = {
        bytes: tensorBytes(shape, dtypeOf(id)),
        persistent: isPersistent(id) ? `${graph.name}/${name ?? op}` : undefined,
      };
      slots.set(id, slot);
    }
    return slot;
  };
  const parameterSlots = new Map<BufferRange, Slot>();
  const context: LowerContext<Slot> = {
    traits: gpu.traits,
    precision,
    node: (id) => graph.node(id),
    operand: (id) => ({ ref: slotOf(id), shape: graph.node(id).shape, dtype: dtypeOf(id) }),
    parameter: (id, packing) => {
      const { name, shape, attributes } = graph.node(id);
      const range = store.get(name!, shape, attributes.layout!, packing, attributes.flatten, derived);
      let slot = parameterSlots.get(range);
      if (!slot) {
        slot = { bytes: range.size, range };
        parameterSlots.set(range, slot);
      }
      return slot;
    },
    temporary: (shape, dtype) => ({ ref: { bytes: tensorBytes(shape, dtype) }, shape, dtype }),
  };
  const calls: KernelCall<Slot>[] = [];
  for (const node of graph.nodes) {
    if (node.op !== 'input' && node.op !== 'parameter') calls.push(...LOWERINGS[node.op](node, context));
  }
  return { calls, slotOf };
}

/** Offsets of all slots that are neither weights nor persistent, by the calls between which they are needed. */
function placeInArena(
  calls: readonly KernelCall<Slot>[],
  gpu: Gpu,
): { plan: MemoryPlan; offsets: Map<Slot, number> } {
  const lifetimes = new Map<Slot, Lifetime>();
  calls.forEach((call, i) => {
    for (const { ref } of call.buffers) {
      if (ref.range || ref.persistent) continue;
      const known = lifetimes.get(ref);
      if (known) known.last = i;
      else lifetimes.set(ref, { bytes: ref.bytes, first: i, last: i });
    }
  });
  const alignment = Math.max(16, gpu.device.limits.minStorageBufferOffsetAlignment);
  const plan = planMemory([...lifetimes.values()], alignment);
  return { plan, offsets: new Map([...lifetimes.keys()].map((slot, i) => [slot, plan.offsets[i]])) };
}

/** A compiled graph. Inputs and outputs have buffers of their own that persist between runs. */
export class Executable {
  constructor(
    private readonly gpu: Gpu,
    readonly graph: Graph,
    readonly program: Program,
    readonly inputs: ReadonlyMap<string, Operand<BufferRange>>,
    readonly outputs: ReadonlyMap<string, Operand<BufferRange>>,
    readonly memory: MemoryPlan,
    private readonly release: () => void,
  ) {}

  /** Records the work into a caller's encoder; inputs must have been written before, outputs are read after. */
  record(encoder: GPUCommandEncoder): void {
    this.program.record(encoder);
  }

  /** Uploads an input given in its logical shape, channels unpadded. */
  setInput(name: string, data: Float32Array): void {
    const input = this.inputs.get(name);
    if (!input)
      throw new WfrError(
        `${this.graph.name} has no input ${name}; it has ${[...this.inputs.keys()].join(', ')}.`,
      );
    const { shape, ref } = input;
    if (data.length !== product(shape)) {
      throw new WfrError(
        `${this.graph.name}: input ${name} has ${data.length} values, [${shape}] needs ${product(shape)}.`,
      );
    }
    this.gpu.write(ref.buffer, ref.offset, pad(data, shape));
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
    for (const [name, data] of Object.entries(inputs)) this.setInput(name, data);
    const names = wanted ?? [...this.outputs.keys()];
    const bytes = await this.gpu.runAndRead(
      (encoder) => this.record(encoder),
      names.map((n) => this.outputs.get(n)!.ref),
    );
    return Object.fromEntries(
      names.map((n, i) => [n, unpad(new Float32Array(bytes[i]), this.outputs.get(n)!.shape)]),
    );
  }

  /** Floating-point operations of a run (a multiply-add counts as two). */
  get flops(): number {
    return this.program.calls.reduce((sum, c) => sum + c.flops, 0);
  }

  destroy(): void {
    this.program.destroy();
    this.release();
  }
}
