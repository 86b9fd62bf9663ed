import { WfrError } from '../gpu/errors.js';
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import { Program } from '../gpu/program.js';
import { type Operand, pad, product, tensorBytes, unpad } from '../kernels/tensor.js';
import { Arena } from './arena.js';
import { fuse } from './fuse.js';
import type { Graph } from './graph.js';
import { LOWERINGS, type LowerContext } from './lower.js';
import { type MemoryPlan, planMemory } from './memory.js';
import type { ParameterStore, ParameterValues } from './parameters.js';

export interface CompileOptions {
  /** Fold batch norm and fuse bias, activation and residual into convolutions. Default true. */
  fuse?: boolean;
  /** Storage of intermediates and convolution weights; inputs, outputs and sums stay f32. Default f32. */
  precision?: FloatType;
  /** Scratch memory to share with other executables on the same device; its own by default. */
  arena?: Arena;
}

/** A buffer before memory is planned: in the arena, or one that outlives a run (`range`). */
interface Slot {
  bytes: number;
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
  const { graph, derived } = options.fuse === false ? { graph: source, derived: undefined } : fuse(source, values);
  const precision = options.precision ?? 'f32';
  const outputs = new Set(graph.outputs.values());
  const slots = new Map<number, Slot>();
  const owned: GPUBuffer[] = [];
  const dtypeOf = (id: number): FloatType => (outputs.has(id) || graph.node(id).op === 'input' ? 'f32' : precision);

  const slotOf = (id: number): Slot => {
    let slot = slots.get(id);
    if (!slot) {
      const node = graph.node(id);
      slot = { bytes: tensorBytes(node.shape, dtypeOf(id)) };
      if (node.op === 'input' || outputs.has(id)) {
        const buffer = gpu.createStorage(slot.bytes, `${graph.name}/${node.name ?? node.op}`);
        owned.push(buffer);
        slot.range = { buffer, offset: 0, size: slot.bytes };
      }
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
      const { name, attributes } = graph.node(id);
      const range = store.get(name!, graph.node(id).shape, attributes.layout!, packing, attributes.flatten, derived);
      let slot = parameterSlots.get(range);
      if (!slot) parameterSlots.set(range, (slot = { bytes: range.size, range }));
      return slot;
    },
    temporary: (shape, dtype) => ({ ref: { bytes: tensorBytes(shape, dtype) }, shape, dtype }),
  };

  const planned: KernelCall<Slot>[] = [];
  for (const node of graph.nodes) {
    if (node.op === 'input') slotOf(node.id);
    else if (node.op !== 'parameter') planned.push(...LOWERINGS[node.op](node, context));
  }

  const { plan, placement } = placeSlots(planned, gpu);
  const arenas = options.arena ?? new Arena(gpu, `${graph.name}/arena`);
  const arena = plan.bytes > 0 ? arenas.acquire(plan.bytes) : undefined;
  const resolve = (slot: Slot): BufferRange =>
    slot.range ?? { buffer: arena!, offset: placement.get(slot)!, size: slot.bytes };
  const ranges = new Map<Slot, BufferRange>();
  const rangeOf = (slot: Slot): BufferRange => {
    let range = ranges.get(slot);
    if (!range) ranges.set(slot, (range = resolve(slot)));
    return range;
  };
  const calls = planned.map((call): KernelCall<BufferRange> => ({
    ...call,
    buffers: call.buffers.map((b) => ({ ...b, ref: rangeOf(b.ref) })),
  }));
  const program = await Program.create(gpu, calls, (range) => store.has(range));
  const io = (id: number): Operand<BufferRange> => ({ ref: slotOf(id).range!, shape: graph.node(id).shape, dtype: 'f32' });
  const inputs = new Map(graph.nodes.filter((n) => n.op === 'input').map((n) => [n.name!, io(n.id)]));
  const results = new Map([...graph.outputs].map(([name, id]) => [name, io(id)]));
  const release = () => {
    program.destroy();
    for (const buffer of owned) gpu.destroyBuffer(buffer);
    if (arena) arenas.release(arena);
  };
  return new Executable(gpu, graph, program, inputs, results, plan, release);
}

function placeSlots(calls: readonly KernelCall<Slot>[], gpu: Gpu): { plan: MemoryPlan; placement: Map<Slot, number> } {
  const lifetimes = new Map<Slot, { bytes: number; first: number; last: number }>();
  calls.forEach((call, i) => {
    for (const { ref } of call.buffers) {
      if (ref.range) continue;
      const known = lifetimes.get(ref);
      if (known) known.last = i;
      else lifetimes.set(ref, { bytes: ref.bytes, first: i, last: i });
    }
  });
  const alignment = Math.max(16, gpu.device.limits.minStorageBufferOffsetAlignment);
  const plan = planMemory([...lifetimes.values()], alignment);
  return { plan, placement: new Map([...lifetimes.keys()].map((slot, i) => [slot, plan.offsets[i]])) };
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
    if (!input) throw new WfrError(`${this.graph.name} has no input ${name}; it has ${[...this.inputs.keys()].join(', ')}.`);
    const { shape, ref } = input;
    if (data.length !== product(shape)) {
      throw new WfrError(`${this.graph.name}: input ${name} has ${data.length} values, [${shape}] needs ${product(shape)}.`);
    }
    this.gpu.write(ref.buffer, ref.offset, pad(data, shape));
  }

  /**
   * One upload, one submit, one readback.
   * @param inputs by name, in logical shape.
   * @param wanted names of the outputs to read; all by default.
   * @returns each output in its logical shape, channels unpadded.
   */
  async run(inputs: Readonly<Record<string, Float32Array>> = {}, wanted?: readonly string[]): Promise<Record<string, Float32Array>> {
    this.gpu.check();
    for (const [name, data] of Object.entries(inputs)) this.setInput(name, data);
    const names = wanted ?? [...this.outputs.keys()];
    const bytes = await this.gpu.runAndRead((encoder) => this.record(encoder), names.map((n) => this.outputs.get(n)!.ref));
    return Object.fromEntries(names.map((n, i) => [n, unpad(new Float32Array(bytes[i]), this.outputs.get(n)!.shape)]));
  }

  /** Floating-point operations of a run (a multiply-add counts as two). */
  get flops(): number {
    return this.program.calls.reduce((sum, c) => sum + c.flops, 0);
  }

  destroy(): void {
    this.release();
  }
}
