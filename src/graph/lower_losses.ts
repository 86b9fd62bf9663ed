import { distillLoss, distillLossBackward } from '../kernels/distill_loss/distill_loss.js';
import { type ClassChunk, gatherClasses, gatherClassesBackward } from '../kernels/gather/classes.js';
import { type MarginLoss, marginLoss, marginLossBackward } from '../kernels/margin_loss/margin_loss.js';
import type { Node } from './graph.js';
import type { LowerContext, Lowering } from './lowering.js';

type Shape = readonly number[];

/** Classes of a weight: a parameter [C, D], or centres gathered from parameters, [Dp, S]. */
const classesOf = (node: Node): number => node.shape[node.op === 'parameter' ? 0 : 1];

function chunksOf<R>(weights: readonly number[], c: LowerContext<R>): ClassChunk<R>[] {
  let first = 0;
  return weights.map((id) => {
    const node = c.node(id);
    const classes = classesOf(node);
    const weight = node.op === 'parameter' ? c.parameter(id, 'f32') : c.operand(id).ref;
    const chunk = { first, classes, weight };
    first += classes;
    return chunk;
  });
}

/** Shapes of what marginLoss keeps: rows, head, then logits and norms of each chunk of classes. */
export function marginParts(batch: number, classes: readonly number[]): Shape[] {
  return [
    [batch, 4],
    [1, 4],
    ...classes.flatMap((n): Shape[] => [
      [batch, n],
      [1, n],
    ]),
  ];
}

/** The call of a node whose inputs end with the weights of the chunks; `part` gives what is kept. */
function marginCall<R>(
  unit: number,
  labels: number,
  weights: readonly number[],
  node: Node,
  c: LowerContext<R>,
  part: (index: number, shape: Shape) => ReturnType<LowerContext<R>['operand']>,
): MarginLoss<R> {
  const chunks = chunksOf(weights, c);
  const [rows, head, ...kept] = marginParts(
    c.node(unit).shape[0],
    chunks.map(({ classes }) => classes),
  ).map((shape, index) => part(index, shape));
  return {
    unit: c.operand(unit),
    labels: c.indices(labels),
    chunks: chunks.map((chunk, k) => ({ ...chunk, logits: kept[2 * k], inverse: kept[2 * k + 1] })),
    margin: node.attributes.margin!,
    rows,
    head,
    temporary: c.temporary,
  };
}

function distillCall<R>(node: Node, c: LowerContext<R>, residual: ReturnType<LowerContext<R>['operand']>) {
  const [unit, teacher] = node.inputs.map((id) => c.operand(id));
  const { cosineWeight, relationWeight } = node.attributes as Required<Node['attributes']>;
  return { unit, teacher, cosineWeight, relationWeight, residual };
}

/** The kernels of the losses over identities and teachers. */
export const LOSS_LOWERINGS = {
  // Parts: 0 the residual [N, N], 1 the rows [N, 3].
  distillLoss: (n, c) => {
    const rows = c.node(n.inputs[0]).shape[0];
    const call = distillCall(n, c, c.part(n.id, 0, [rows, rows]));
    return distillLoss(call, c.part(n.id, 1, [rows, 3]), c.operand(n.id));
  },
  distillLossBackward: (n, c) => {
    const [, , residual, dLoss] = n.inputs.map((id) => c.operand(id));
    return distillLossBackward(distillCall(n, c, residual), dLoss, c.operand(n.id), c.temporary);
  },
  marginLoss: (n, c) => {
    const [unit, labels, ...weights] = n.inputs;
    const call = marginCall(unit, labels, weights, n, c, (index, shape) => c.part(n.id, index, shape));
    return marginLoss(call, c.operand(n.id), c.traits);
  },
  // Inputs: as forward, then dLoss, then what the forward pass kept. Parts: the weights' gradients.
  marginLossBackward: (n, c) => {
    const [unit, labels, ...rest] = n.inputs;
    const count = n.attributes.chunks!;
    const weights = rest.slice(0, count);
    const [dLoss, ...kept] = rest.slice(count);
    const call = marginCall(unit, labels, weights, n, c, (index) => c.operand(kept[index]));
    const dWeights = weights.map((id, k) => {
      const { shape } = c.node(id);
      const isGathered = c.node(id).op !== 'parameter';
      return c.part(n.id, k, isGathered ? shape : [packedRows(shape), shape[0]]).ref;
    });
    return marginLossBackward(call, c.operand(dLoss), c.operand(n.id), dWeights, c.traits);
  },
  gatherClasses: (n, c) => {
    const [selection, ...weights] = n.inputs;
    return gatherClasses(c.indices(selection), chunksOf(weights, c), c.operand(n.id));
  },
  gatherClassesBackward: (n, c) => {
    const [selection, dy, weight] = n.inputs;
    const chunk = { first: n.attributes.first!, classes: classesOf(c.node(weight)) };
    return gatherClassesBackward(
      c.indices(selection),
      chunk,
      c.operand(dy),
      c.operand(n.id).ref,
      c.temporary,
    );
  },
} satisfies Record<string, Lowering>;

/** Rows of a dense weight [C, D] on the GPU. */
const packedRows = ([, d]: Shape): number => Math.ceil(d / 4) * 4;
