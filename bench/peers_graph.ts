/** The net as other engines are given it (peers.ts). */
import { Graph, type Tensor } from '../src/graph/graph.js';

/** Attributes of a layer after `fuse` that the other engines' versions of it follow. */
const FOLLOWED = new Set([
  'stride',
  'padding',
  'dilation',
  'groups',
  'hasBias',
  'activation',
  'hasResidual',
  'hasInputAffine',
]);

/**
 * Keeps what `fuse` folded into weights and epilogues, which spares anybody an op, and makes ops again of what only wfr's
 * kernels do within a layer.
 * @throws Error when fusion did something to a layer that is neither.
 */
export function separate(fused: Graph): Graph {
  const graph = new Graph(fused.name, fused);
  const mapped = new Map<number, Tensor>();
  for (const { id, op, name, inputs, attributes } of fused.nodes) {
    const operands = inputs.map((i) => mapped.get(i)!);
    if (op !== 'conv2d' && op !== 'dense') {
      mapped.set(id, graph.add(op, operands, attributes, name));
      continue;
    }
    const { pool, softmax, ...own } = attributes;
    const unknown = Object.entries(own).find(([key, value]) => value && !FOLLOWED.has(key));
    if (unknown) throw new Error(`${fused.name}: no other engine is told of ${op}'s ${unknown[0]} yet.`);
    let y = graph.add(op, operands, own, name);
    if (pool) y = graph.maxPool(y, pool);
    if (softmax) y = graph.softmax(y);
    mapped.set(id, y);
  }
  for (const [name, id] of fused.outputs) graph.output(name, mapped.get(id)!);
  return graph;
}
