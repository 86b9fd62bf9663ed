import type { DeviceTraits } from '../gpu/traits.js';
import { takesNormDepthwise } from '../kernels/conv2d/norm_depthwise.js';
import { Graph, type Node, type Tensor } from './graph.js';
import { convolutionShape } from './lowering.js';
import { soleUsers } from './users.js';

/**
 * Training: moves PReLU or ReLU and one residual addition into the pass that normalises, y = activation(x·scale +
 * shift) + residual, and so into batch norm's backward too: each op that disappears saves reading and writing a map
 * both ways. A PReLU before max pooling becomes part of it, and norm and PReLU part of a depthwise layer that alone uses
 * them, where the device has kernels for that. Run before `gradient`.
 */
export function fuseTraining(
  source: Graph,
  traits: DeviceTraits,
): { graph: Graph; mapped: Map<number, Tensor> } {
  const soleUser = soleUsers(source);
  const graph = new Graph(source.name, source);
  const mapped = new Map<number, Tensor>();
  const done = new Set<number>();
  const copy = (node: Node): Tensor => {
    const known = mapped.get(node.id);
    if (known) return known;
    const inputs = node.inputs.map((id) => mapped.get(id)!);
    const t = graph.add(node.op, inputs, node.attributes, node.name);
    mapped.set(node.id, t);
    return t;
  };
  for (const node of source.nodes) {
    if (done.has(node.id)) continue;
    const pool = node.op === 'prelu' ? soleUser(node.id) : undefined;
    if (pool?.op === 'maxPool') {
      const inputs = node.inputs.map((id) => mapped.get(id)!);
      const attributes = { ...pool.attributes, activation: 'prelu' as const };
      mapped.set(pool.id, graph.add('maxPool', inputs, attributes, pool.name));
      done.add(pool.id);
      continue;
    }
    if (node.op !== 'batchNormApply') {
      copy(node);
      continue;
    }
    let last = node;
    const inputs = node.inputs.map((id) => mapped.get(id)!);
    let { activation = 'none' } = node.attributes;
    let hasResidual = false;
    const absorb = (next: Node) => {
      last = next;
      done.add(next.id);
    };
    let next = soleUser(last.id);
    if (next?.op === 'prelu' || next?.op === 'relu') {
      activation = next.op;
      if (next.op === 'prelu') inputs.push(copy(source.node(next.inputs[1])));
      absorb(next);
      next = soleUser(last.id);
    }
    const w = next?.op === 'conv2d' && activation === 'prelu' ? source.node(next.inputs[1]) : undefined;
    if (
      next &&
      w &&
      !next.attributes.hasBias &&
      takesNormDepthwise(convolutionShape(node.shape, w.shape, next.shape, next.attributes), traits)
    ) {
      inputs.push(copy(w));
      absorb(next);
      const attributes = { ...next.attributes, fixed: node.attributes.fixed };
      mapped.set(last.id, graph.add('batchNormConv2d', inputs, attributes, next.name));
      continue;
    }
    if (next?.op === 'add') {
      // The other operand must exist by now: this node stands before where the sum stood.
      const other = next.inputs[0] === last.id ? next.inputs[1] : next.inputs[0];
      if (other !== last.id && mapped.has(other)) {
        inputs.push(mapped.get(other)!);
        hasResidual = true;
        absorb(next);
      }
    }
    const attributes = { ...node.attributes, activation, hasResidual };
    mapped.set(last.id, graph.add('batchNormApply', inputs, attributes, node.name));
  }
  for (const [name, id] of source.outputs) graph.output(name, mapped.get(id)!);
  return { graph, mapped };
}
