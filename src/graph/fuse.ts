import type { DeviceTraits } from '../gpu/traits.js';
import { takesPair } from '../kernels/conv2d/expand.js';
import { takesSoftmax } from '../kernels/conv2d/narrow.js';
import { isPooled } from '../kernels/conv2d/pooled.js';
import type { Activation } from '../kernels/conv2d/types.js';
import { Graph, type Node, type Tensor } from './graph.js';
import { convolutionShape } from './lowering.js';
import type { ParameterValue, ParameterValues } from './parameters.js';
import { convolved, type OpAttributes } from './shapes.js';
import { soleUsers } from './users.js';

/**
 * Inference only: folds batch norm into the convolution or dense layer before it, or where there is none (after an
 * addition) makes it an affine map of the input of the 3×3 convolution after it, and moves bias, PReLU or ReLU and
 * one residual addition into the epilogue, y = activation(conv(x·s + t, w) + b) + residual, or a first layer's max
 * pooling, or the softmax of a few outputs. Saves one read and one write of the map for each op that disappears.
 * With the device's traits also makes one node of a 1×1 layer and the depthwise filter after it, where a kernel does both.
 *
 * @returns the new graph and the folded weights, computed when first asked for.
 */
export function fuse(
  source: Graph,
  values: ParameterValues,
  traits?: DeviceTraits,
): { graph: Graph; derived: ParameterValues } {
  const soleUser = soleUsers(source);
  const graph = new Graph(source.name, source);
  const mapped = new Map<number, Tensor>();
  const derivations = new Map<string, () => ParameterValue>();
  const done = new Set<number>();

  for (const node of source.nodes) {
    if (done.has(node.id)) continue;
    const inputs = () => node.inputs.map((id) => mapped.get(id)!);
    if (node.op !== 'conv2d' && node.op !== 'dense') {
      mapped.set(node.id, graph.add(node.op, inputs(), node.attributes, node.name));
      continue;
    }
    let last = node;
    let weight = mapped.get(node.inputs[1])!;
    let bias: Tensor | undefined = node.attributes.hasBias ? mapped.get(node.inputs[2]) : undefined;
    const absorb = (next: Node) => {
      last = next;
      done.add(next.id);
    };

    let next = soleUser(last.id);
    if (next?.op === 'batchNorm') {
      const names = next.inputs.slice(1).map((id) => source.node(id).name!);
      const folded = foldBatchNorm(source, node, names, next.attributes.eps!, values, derivations);
      const w = source.node(node.inputs[1]);
      weight = graph.parameter(folded.weight, w.shape, w.attributes.layout!, w.attributes.flatten);
      bias = graph.parameter(folded.bias, [w.shape[0]], 'vector');
      absorb(next);
      next = soleUser(last.id);
    }
    let activation: Activation = 'prelu';
    let softmax = false;
    let slope: Tensor | undefined;
    if (next?.op === 'prelu' || next?.op === 'relu') {
      activation = next.op;
      if (next.op === 'prelu')
        slope = graph.parameter(
          source.node(next.inputs[1]).name!,
          source.node(next.inputs[1]).shape,
          'vector',
        );
      absorb(next);
      next = soleUser(last.id);
    } else if (next?.op === 'softmax' && takesSoftmax(node.shape[node.shape.length - 1])) {
      activation = 'none';
      softmax = true;
      absorb(next);
      next = undefined;
    } else slope = ones(graph, node.shape[node.shape.length - 1], derivations);
    const norm = source.node(node.inputs[0]);
    const hasInputAffine =
      node.op === 'conv2d' &&
      norm.op === 'batchNorm' &&
      !done.has(norm.id) &&
      soleUser(norm.id) === node &&
      takesInputAffine(source.node(node.inputs[1]).shape, node.attributes);
    const x = mapped.get(hasInputAffine ? norm.inputs[0] : node.inputs[0])!;
    let residual: Tensor | undefined;
    const pool = node.op === 'conv2d' && next?.op === 'maxPool' ? poolOf(source, node, next) : undefined;
    if (pool) absorb(next!);
    if (next?.op === 'add') {
      // The other operand must exist by now: the convolution takes the place where the sum stood only if so. It is
      // not what the convolution reads, unless a dispatch before maps that: bound as different types, no dispatch takes it twice.
      const other = next.inputs[0] === last.id ? next.inputs[1] : next.inputs[0];
      const isFree = hasInputAffine || mapped.get(other) !== x;
      if (other !== last.id && mapped.has(other) && isFree) {
        residual = mapped.get(other);
        absorb(next);
      }
    }
    const affine = hasInputAffine ? affineOf(source, norm, values, derivations) : [];
    const vectors = affine.map((name) =>
      graph.parameter(name, [norm.shape[norm.shape.length - 1]], 'vector'),
    );
    const operands = [x, weight, bias, slope, residual, ...vectors].filter(
      (t): t is Tensor => t !== undefined,
    );
    const attributes = {
      ...node.attributes,
      hasBias: Boolean(bias),
      activation,
      hasResidual: Boolean(residual),
      hasInputAffine,
      pool,
      softmax,
    };
    const before = graph.node(x);
    if (traits && soleUser(node.inputs[0]) === node && isPair(graph, before, operands, attributes, traits)) {
      const pair = [...before.inputs.map((id) => graph.node(id)), ...operands.slice(1)];
      mapped.set(last.id, graph.add('expandDepthwise', pair, node.attributes, node.name));
    } else mapped.set(last.id, graph.add(node.op, operands, attributes, node.name));
  }
  for (const [name, id] of source.outputs) graph.output(name, mapped.get(id)!);
  return { graph: dropUnused(graph), derived: lazy(derivations) };
}

/** Names of the folded weight and bias: w·γ/σ and (b − μ)·γ/σ + β, per output channel. */
function foldBatchNorm(
  source: Graph,
  conv: Node,
  [gamma, beta, mean, variance]: string[],
  eps: number,
  values: ParameterValues,
  derivations: Map<string, () => ParameterValue>,
): { weight: string; bias: string } {
  const weightName = source.node(conv.inputs[1]).name!;
  const biasName = conv.attributes.hasBias ? source.node(conv.inputs[2]).name! : undefined;
  const folded = { weight: `${weightName} × ${gamma}`, bias: `${weightName} → ${beta}` };
  const scaleOf = (k: number, g: ParameterValue, v: ParameterValue) => g.data[k] / Math.sqrt(v.data[k] + eps);
  const need = (name: string) => needed(values, name);
  derivations.set(folded.weight, () => {
    const w = need(weightName);
    const [g, v] = [need(gamma), need(variance)];
    const data = new Float32Array(w.data.length);
    const perFilter = w.data.length / (w.shape[0] ?? 1);
    for (let k = 0; k < w.shape[0]; k++) {
      const scale = scaleOf(k, g, v);
      for (let i = k * perFilter; i < (k + 1) * perFilter; i++) data[i] = w.data[i] * scale;
    }
    return { shape: w.shape, data };
  });
  derivations.set(folded.bias, () => {
    const [g, v, b, m] = [need(gamma), need(variance), need(beta), need(mean)];
    const own = biasName ? need(biasName).data : undefined;
    const data = b.data.map((value, k) => ((own?.[k] ?? 0) - m.data[k]) * scaleOf(k, g, v) + value);
    return { shape: b.shape, data };
  });
  return folded;
}

/** Slopes that change nothing: with them a layer without activation runs the pipelines of those with PReLU. */
function ones(graph: Graph, length: number, derivations: Map<string, () => ParameterValue>): Tensor {
  const name = `ones [${length}]`;
  derivations.set(name, () => ({ shape: [length], data: new Float32Array(length).fill(1) }));
  return graph.parameter(name, [length], 'vector');
}

/** Only worth it where some kernel does it in passing: see conv2d/winograd.ts. */
const takesInputAffine = ([, , kh, kw]: readonly number[], a: Node['attributes']): boolean =>
  kh === 3 && kw === 3 && a.stride === 1 && a.dilation === 1 && a.groups === 1;

/** The max pooling after a convolution, where some kernel does it in passing: see conv2d/pooled.ts. */
function poolOf(source: Graph, conv: Node, next: Node): OpAttributes['pool'] {
  const [x, w] = conv.inputs.map((id) => source.node(id).shape);
  const { kernel, stride, padding, ceil } = next.attributes as Required<OpAttributes>;
  const shape = convolutionShape(x, w, conv.shape, conv.attributes);
  return padding === 0 && isPooled(shape, { kernel, stride }) ? { kernel, stride, ceil } : undefined;
}

/** Whether a layer about to be made and the one before it are, both with bias and PReLU and nothing else, a pair of expand.ts. */
function isPair(
  graph: Graph,
  before: Node,
  operands: readonly Tensor[],
  attributes: OpAttributes,
  traits: DeviceTraits,
): boolean {
  const isHalf = (a: OpAttributes, inputs: readonly unknown[]) =>
    a.hasBias && a.activation === 'prelu' && inputs.length === 4;
  if (!isHalf(before.attributes, before.inputs) || !isHalf(attributes, operands)) return false;
  const shapeOf = (inputs: readonly Pick<Node, 'shape'>[], a: OpAttributes) => {
    const [x, w] = inputs.map((t) => t.shape);
    return convolutionShape(x, w, convolved(x, w, a), a);
  };
  return takesPair(
    shapeOf(
      before.inputs.map((id) => graph.node(id)),
      before.attributes,
    ),
    shapeOf(operands, attributes),
    traits,
  );
}

/** Names of a batch norm's scale γ/σ and shift β − μ·γ/σ. */
function affineOf(
  source: Graph,
  norm: Node,
  values: ParameterValues,
  derivations: Map<string, () => ParameterValue>,
): [string, string] {
  const [gamma, beta, mean, variance] = norm.inputs.slice(1).map((id) => source.node(id).name!);
  const names: [string, string] = [`${gamma} scale`, `${beta} shift`];
  const scaleOf = (): Float32Array => {
    const [g, v] = [needed(values, gamma).data, needed(values, variance).data];
    return g.map((value, k) => value / Math.sqrt(v[k] + norm.attributes.eps!));
  };
  derivations.set(names[0], () => ({ shape: needed(values, gamma).shape, data: scaleOf() }));
  derivations.set(names[1], () => {
    const [scale, b, m] = [scaleOf(), needed(values, beta), needed(values, mean).data];
    return { shape: b.shape, data: b.data.map((value, k) => value - m[k] * scale[k]) };
  });
  return names;
}

/** The store says better what is missing when the weight itself is asked for; an empty one leads there. */
const needed = (values: ParameterValues, name: string): ParameterValue =>
  values.get(name) ?? { shape: [], data: new Float32Array(0) };

function lazy(derivations: Map<string, () => ParameterValue>): ParameterValues {
  return { get: (name) => derivations.get(name)?.() };
}

/** Removes nodes that no output needs (parameters whose folded copy is used). Inputs stay. */
export function dropUnused(graph: Graph): Graph {
  const needed = new Set<number>(graph.outputs.values());
  for (let id = graph.nodes.length - 1; id >= 0; id--) {
    if (graph.nodes[id].op === 'input') needed.add(id);
    if (needed.has(id)) for (const input of graph.nodes[id].inputs) needed.add(input);
  }
  const kept = new Graph(graph.name, graph);
  const mapped = new Map<number, Tensor>();
  for (const node of graph.nodes) {
    if (needed.has(node.id)) {
      mapped.set(
        node.id,
        kept.add(
          node.op,
          node.inputs.map((id) => mapped.get(id)!),
          node.attributes,
          node.name,
        ),
      );
    }
  }
  for (const [name, id] of graph.outputs) kept.output(name, mapped.get(id)!);
  return kept;
}
