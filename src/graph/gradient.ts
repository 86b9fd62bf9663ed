import { WfrError } from '../gpu/errors.js';
import { packedLength } from '../kernels/packing.js';
import { placesShape } from '../kernels/pool/max_training.js';
import type { Graph, Node, Tensor } from './graph.js';
import { marginParts } from './lower_losses.js';
import type { OpName } from './shapes.js';

/** What a rule may use. */
interface Rule {
  /** The node's inputs as tensors. */
  inputs: Tensor[];
  /** Its output. */
  y: Tensor;
  dy: Tensor;
  g: Graph;
  /** Whether the gradient of an input leads to a wanted parameter. */
  needs(input: number): boolean;
  /** Takes away the gradient that an input has from its other uses, for a kernel that adds to it on the way. */
  pending(input: number): Tensor | undefined;
  /** Adds a node that the anomaly search names after the forward node. */
  back(op: OpName, inputs: readonly Tensor[], attributes?: Node['attributes']): Tensor;
}

type Gradients = readonly (Tensor | undefined)[];

/** Gradients of a convolution or dense layer: of its input, of its weight in the weight's GPU order, of its bias. */
const linear =
  (input: OpName, weight: OpName) =>
  (node: Node, r: Rule): Gradients => {
    const [x, w] = r.inputs;
    const { shape, layout, flatten } = { ...r.g.node(w), ...r.g.node(w).attributes };
    const a = node.attributes;
    const extra = r.needs(0) ? r.pending(0) : undefined;
    // Max pooling hands back the numbers it gets: they have the same sum over fewer places.
    const before = r.g.node(r.dy.id);
    const summed =
      before.op === 'maxPoolBackward'
        ? { id: before.inputs[1], shape: r.g.node(before.inputs[1]).shape }
        : r.dy;
    return [
      r.needs(0)
        ? r.back(input, extra ? [r.dy, w, extra] : [r.dy, w], {
            ...a,
            shape: x.shape,
            hasExtra: Boolean(extra),
          })
        : undefined,
      r.needs(1)
        ? r.back(weight, [x, r.dy, w], { ...a, shape: [packedLength(shape, layout!, flatten)] })
        : undefined,
      a.hasBias && r.needs(2) ? r.back('channelSum', [summed]) : undefined,
    ];
  };

/**
 * The gradient of every op: given dL/dy, dL/d(each input). Nodes without inputs
 * (input, parameter) stop it; any other op that is not here is an error.
 */
const RULES: Partial<Record<OpName, (node: Node, r: Rule) => Gradients>> = {
  conv2d: linear('conv2dGradInput', 'conv2dGradWeight'),
  dense: linear('denseGradInput', 'denseGradWeight'),

  // x, statistics, weight, bias, slope?, residual?: the statistics' dependence on x is in dx.
  batchNormApply: (node, r) => {
    const { activation, fixed, hasResidual } = node.attributes;
    const [x, statistics] = r.inputs;
    const slope = activation === 'prelu' ? 4 : undefined;
    const residual = hasResidual ? (slope ?? 3) + 1 : undefined;
    // Before this node's own: a residual that is x itself must not be counted twice.
    const extra =
      residual !== undefined && node.inputs[residual] === node.inputs[0] ? undefined : r.pending(0);
    const operands = [x, r.dy, statistics];
    if (slope !== undefined) operands.push(r.inputs[slope]);
    if (extra) operands.push(extra);
    const dx = r.back('batchNormBackward', operands, { activation, fixed, hasExtra: Boolean(extra) });
    const part = (input: number | undefined, index: number) =>
      input !== undefined && r.needs(input) ? r.g.part(dx, index, r.inputs[input].shape) : undefined;
    const out: (Tensor | undefined)[] = [dx, undefined, part(2, 0), part(3, 1)];
    if (slope !== undefined) out[slope] = part(slope, 2);
    if (residual !== undefined) out[residual] = r.dy;
    return out;
  },

  // x, statistics, weight, bias, slope, the convolution's weight.
  batchNormConv2d: (node, r) => {
    const [x, statistics, , , slope, w] = r.inputs;
    const dx = r.back('batchNormConv2dBackward', [x, r.dy, statistics, slope, w], node.attributes);
    const { layout } = r.g.node(w).attributes;
    const part = (input: number, index: number, shape = r.inputs[input].shape) =>
      r.needs(input) ? r.g.part(dx, index, shape) : undefined;
    return [dx, undefined, part(2, 0), part(3, 1), part(4, 2), part(5, 3, [packedLength(w.shape, layout!)])];
  },

  prelu: (_, r) => {
    const dx = r.back('preluBackward', [r.inputs[0], r.dy, r.inputs[1]]);
    return [dx, r.needs(1) ? r.g.part(dx, 0, r.inputs[1].shape) : undefined];
  },
  relu: (_, r) => [r.back('reluBackward', [r.inputs[0], r.dy])],
  add: (_, r) => [r.dy, r.dy],
  mul: (_, r) => [
    r.needs(0) ? r.back('mul', [r.dy, r.inputs[1]]) : undefined,
    r.needs(1) ? r.back('mul', [r.dy, r.inputs[0]]) : undefined,
  ],
  scale: (node, r) => [r.back('scale', [r.dy], node.attributes)],
  // x, slope?: of a PReLU before it. Parts: 0, the places of the maxima; 1, x there.
  maxPool: (node, r) => {
    const places = r.g.part(r.y, 0, placesShape(r.y.shape));
    const [x, slope] = r.inputs;
    const dy = slope ? r.back('preluBackward', [r.g.part(r.y, 1, r.y.shape), r.dy, slope]) : r.dy;
    const dx = r.back('maxPoolBackward', [places, dy], { ...node.attributes, shape: x.shape });
    return [dx, slope && r.needs(1) ? r.g.part(dy, 0, slope.shape) : undefined];
  },
  avgPool: (node, r) => [r.back('avgPoolBackward', [r.dy], { ...node.attributes, shape: r.inputs[0].shape })],
  globalAvgPool: (_, r) => [r.back('globalAvgPoolBackward', [r.dy], { shape: r.inputs[0].shape })],
  softmax: (_, r) => [r.back('softmaxBackward', [r.y, r.dy])],
  l2Normalize: (node, r) => [r.back('l2NormalizeBackward', [r.inputs[0], r.dy], node.attributes)],
  flatten: (node, r) => [r.back('flattenBackward', [r.dy], { ...node.attributes, shape: r.inputs[0].shape })],
  flip: (_, r) => [r.back('flip', [r.dy])],
  // The same mask again, from the same salt and seed.
  dropout: (node, r) => [r.back('dropout', [r.dy], node.attributes)],
  softmaxCrossEntropy: (_, r) => [r.back('softmaxCrossEntropyBackward', [...r.inputs, r.dy])],
  distillLoss: (node, r) => {
    const rows = r.inputs[0].shape[0];
    const residual = r.g.part(r.y, 0, [rows, rows]);
    return [r.back('distillLossBackward', [...r.inputs, residual, r.dy], node.attributes)];
  },
  marginLoss: (node, r) => {
    const weights = r.inputs.slice(2);
    const classes = weights.map((w) => w.shape[r.g.node(w).op === 'parameter' ? 0 : 1]);
    const kept = marginParts(r.inputs[0].shape[0], classes).map((shape, i) => r.g.part(r.y, i, shape));
    const attributes = { ...node.attributes, chunks: weights.length };
    const dx = r.back('marginLossBackward', [...r.inputs, r.dy, ...kept], attributes);
    const dWeights = weights.map((w, k) => {
      const { op, attributes: a } = r.g.node(w);
      const shape = op === 'parameter' ? [packedLength(w.shape, a.layout!)] : w.shape;
      return r.needs(k + 2) ? r.g.part(dx, k, shape) : undefined;
    });
    return [dx, undefined, ...dWeights];
  },
  gatherClasses: (_, r) => {
    const [selection, ...weights] = r.inputs;
    let first = 0;
    const gradients = weights.map((w) => {
      const shape = [packedLength(w.shape, 'dense')];
      const dw = r.back('gatherClassesBackward', [selection, r.dy, w], { first, shape });
      first += w.shape[0];
      return dw;
    });
    return [undefined, ...gradients];
  },
  // logits, box, tasks, box target, points?, points target?
  mtcnnLoss: (node, r) => {
    const [logits, box, , , points] = r.inputs;
    const rows = logits.shape[0];
    const shares = r.g.part(r.y, 1, [rows, 4]);
    const dLogits = r.back('mtcnnLossBackward', [...r.inputs, shares, r.dy], node.attributes);
    const dBox = r.g.part(dLogits, 0, box.shape);
    return [dLogits, dBox, undefined, undefined, points && r.g.part(dLogits, 1, points.shape)];
  },
  smoothL1: (node, r) => [r.back('smoothL1Backward', [...r.inputs, r.dy], node.attributes)],
};

/**
 * Appends to a graph the nodes that compute the gradient of `loss` with respect to `parameters`, by reverse
 * accumulation over the table above. Parameter gradients lie in the parameter's own GPU order (packing.ts).
 *
 * @param loss one number, shape [1].
 * @param parameters tensors of parameter nodes.
 * @param keeps which forward values stay in memory for the backward pass; the others are computed again, from those
 *   kept, just before they are needed (Chen, Xu, Zhang & Guestrin 2016). All by default. Copies of nodes that turn out not
 *   to be needed are among those added: what no result depends on is not to be run.
 * @returns `gradients` by parameter id (one on which the loss does not depend is missing), `copies` of forward nodes:
 *   id of the copy → id of the original.
 * @throws WfrError when the loss is not one number or runs through an op without a gradient.
 */
export function gradient(
  graph: Graph,
  loss: Tensor,
  parameters: readonly Tensor[],
  keeps: (node: Node) => boolean = () => true,
): { gradients: Map<number, Tensor>; copies: Map<number, number> } {
  if (loss.shape.length !== 1 || loss.shape[0] !== 1)
    throw new WfrError(
      `${graph.name}: the gradient of a value of shape [${loss.shape}] was asked for; a loss is one number, [1].`,
    );
  const wanted = new Set(parameters.map((p) => p.id));
  const count = loss.id + 1;
  /** Whether a wanted parameter lies upstream of a node. */
  const leads: boolean[] = [];
  for (let id = 0; id < count; id++)
    leads.push(wanted.has(id) || graph.node(id).inputs.some((input) => leads[input]));

  const tensor = (id: number): Tensor => ({ id, shape: graph.node(id).shape });
  const copies = new Map<number, number>();
  const copied = new Map<number, Tensor>();
  /** A forward value as the backward pass finds it. */
  const value = (id: number): Tensor => {
    const node = graph.node(id);
    if (node.inputs.length === 0 || keeps(node)) return tensor(id);
    let copy = copied.get(id);
    if (!copy) {
      copy = graph.add(node.op, node.inputs.map(value), node.attributes, `again ${describeNode(graph, id)}`);
      copied.set(id, copy);
      copies.set(copy.id, id);
    }
    return copy;
  };
  const arrived = new Map<number, Tensor>();
  const arrive = (id: number, t: Tensor) => {
    const before = arrived.get(id);
    const name = `gradient of ${describeNode(graph, id)}`;
    if (!before) arrived.set(id, t);
    else if (before.id === t.id) arrived.set(id, graph.add('scale', [t], { value: 2 }, name));
    else arrived.set(id, graph.add('add', [before, t], {}, name));
  };
  const gradients = new Map<number, Tensor>();
  if (leads[loss.id]) arrived.set(loss.id, graph.add('lossGradient', []));
  for (let id = loss.id; id >= 0; id--) {
    const dy = arrived.get(id);
    if (!dy) continue;
    arrived.delete(id);
    const node = graph.node(id);
    if (wanted.has(id)) gradients.set(id, dy);
    if (node.inputs.length === 0) continue;
    const rule = RULES[node.op];
    if (!rule)
      throw new WfrError(
        `${graph.name}: ${describeNode(graph, id)} has no gradient, and a trained weight lies before it.`,
      );
    const name = `gradient of ${describeNode(graph, id)}`;
    const found = rule(node, {
      inputs: node.inputs.map(value),
      y: value(id),
      dy,
      g: graph,
      needs: (input) => leads[node.inputs[input]],
      pending: (input) => {
        const t = arrived.get(node.inputs[input]);
        arrived.delete(node.inputs[input]);
        return t;
      },
      back: (op, inputs, attributes = {}) => graph.add(op, inputs, attributes, name),
    });
    found.forEach((t, i) => {
      if (t && leads[node.inputs[i]]) arrive(node.inputs[i], t);
    });
  }
  return { gradients, copies };
}

/** A node by its op and the weight it uses: "conv2d layer1.0.conv1". */
export function describeNode(graph: Graph, id: number): string {
  const node = graph.node(id);
  if (node.name) return node.name;
  const weight = node.inputs.map((i) => graph.node(i)).find((n) => n.op === 'parameter');
  return weight ? `${node.op} ${weight.name!.replace(/\.[^.]*$/, '')}` : `${node.op} (node ${id})`;
}
