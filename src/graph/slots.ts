import { WfrError } from '../gpu/errors.js';
import type { BufferRange } from '../gpu/gpu.js';
import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import type { Packing } from '../kernels/packing.js';
import { product, tensorBytes } from '../kernels/tensor.js';
import type { Graph } from './graph.js';
import { isMemory, type LowerContext, type Lowerings } from './lowering.js';
import { type Lifetime, type MemoryPlan, planMemory } from './memory.js';

/** A buffer before memory is planned: a block of the arena, or something that outlives a run. */
export interface Slot {
  bytes: number;
  /** Label of an input or output, which get buffers of their own. */
  persistent?: string;
  /** Memory that exists already. */
  range?: BufferRange;
  /** Part of one of the flat buffers of a training step, resolved once they are made. */
  flat?: { buffer: string; offset: number };
}

export interface LowerOptions {
  /** The kernels of the ops that may occur: a page that only runs nets need not load those of training. */
  lowerings: Lowerings;
  traits: DeviceTraits;
  /** Weights and intermediates; `dtypeOf` says of which nodes. */
  precision: FloatType;
  /** Weights never change. Default false. */
  fixedWeights?: boolean;
  dtypeOf(id: number): FloatType;
  parameter(id: number, packing: Packing): Slot;
  /** Parameters one after the other: for graphs that are fused. */
  rows?(ids: readonly number[]): Slot;
  /** Memory that a node's value must be written to. */
  place?(id: number): Slot | undefined;
  step?: Slot;
  /** Nodes to run; all by default. */
  needed?: ReadonlySet<number>;
  /** Calls that prepare what a node's lowering has just asked for, to put before its own; taken away by the call. */
  before?(): KernelCall<Slot>[];
  /** Calls to append after a node's own. */
  after?(id: number, slot: Slot, dtype: FloatType): KernelCall<Slot>[];
}

export interface Lowered {
  calls: KernelCall<Slot>[];
  slotOf(id: number): Slot;
}

/** The kernel calls of a graph over slots; inputs and outputs are persistent. */
export function lower(graph: Graph, o: LowerOptions): Lowered {
  const outputs = new Set(graph.outputs.values());
  const isPersistent = (id: number) => outputs.has(id) || graph.node(id).op === 'input';
  const slots = new Map<number, Slot>();
  const slotOf = (id: number): Slot => {
    let slot = slots.get(id) ?? o.place?.(id);
    if (!slot) {
      const { shape, name, op, attributes } = graph.node(id);
      slot = {
        bytes: attributes.dtype === 'u32' ? product(shape) * 4 : tensorBytes(shape, o.dtypeOf(id)),
        persistent: isPersistent(id) ? `${graph.name}/${name ?? op}` : undefined,
      };
    }
    slots.set(id, slot);
    return slot;
  };
  const onlyTraining = (what: string): never => {
    throw new WfrError(`${graph.name} holds ${what}: only a training step can run it.`);
  };
  const parts = new Map<string, number>();
  for (const n of graph.nodes) if (n.op === 'part') parts.set(`${n.inputs[0]}.${n.attributes.index}`, n.id);
  const normed = new Set(graph.nodes.filter((n) => n.op === 'batchNormStatistics').map((n) => n.inputs[0]));
  const context: LowerContext<Slot> = {
    traits: o.traits,
    precision: o.precision,
    fixedWeights: o.fixedWeights ?? false,
    expands: graph.nodes.some((n) => n.op === 'expandDepthwise'),
    node: (id) => graph.node(id),
    operand: (id) => ({ ref: slotOf(id), shape: graph.node(id).shape, dtype: o.dtypeOf(id) }),
    parameter: o.parameter,
    rows: (ids) => o.rows!(ids),
    temporary: (shape, dtype) => ({ ref: { bytes: tensorBytes(shape, dtype) }, shape, dtype }),
    indices: slotOf,
    part: (id, index, shape) => {
      const node = parts.get(`${id}.${index}`);
      return node === undefined ? context.temporary(shape, 'f32') : context.operand(node);
    },
    isNormed: (id) => normed.has(id),
    statistics: new Map(),
    step: () => o.step ?? onlyTraining('an op that needs the words of a step'),
  };
  const calls: KernelCall<Slot>[] = [];
  for (const node of graph.nodes) {
    if (isMemory(node.op) || (o.needed && !o.needed.has(node.id))) continue;
    const own = (o.lowerings[node.op] ?? onlyTraining(node.op))(node, context);
    calls.push(...(o.before?.() ?? []), ...own);
    if (o.after) calls.push(...o.after(node.id, slotOf(node.id), o.dtypeOf(node.id)));
  }
  return { calls, slotOf };
}

/** Offsets of all slots that live in the arena, by the calls between which they are needed. */
export function placeInArena(
  calls: readonly KernelCall<Slot>[],
  storageAlignment: number,
): { plan: MemoryPlan; offsets: Map<Slot, number> } {
  const lifetimes = new Map<Slot, Lifetime>();
  calls.forEach((call, i) => {
    for (const { ref } of call.buffers) {
      if (ref.range || ref.persistent || ref.flat) continue;
      const known = lifetimes.get(ref);
      if (known) known.last = i;
      else lifetimes.set(ref, { bytes: ref.bytes, first: i, last: i });
    }
  });
  const plan = planMemory([...lifetimes.values()], Math.max(16, storageAlignment));
  return { plan, offsets: new Map([...lifetimes.keys()].map((slot, i) => [slot, plan.offsets[i]])) };
}
