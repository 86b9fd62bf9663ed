import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js';
import type { Graph, Node } from '../../src/graph/graph.js';
import type { ParameterValues } from '../../src/graph/parameters.js';
import { dropoutKeeps } from '../../src/kernels/dropout/dropout.js';
import type { FlattenOrder } from '../../src/kernels/packing.js';

type T = tf.Tensor;

/** Batch norm's statistics travel from one node to the next. */
interface Statistics {
  mean: T;
  variance: T;
  eps: number;
}

/**
 * The same graph built in TensorFlow.js op by op, with gradients by its own differentiation: an implementation that
 * shares nothing with this project's but the order in which maps are flattened and the mask of dropout.
 */
export async function tfjsGradients(
  graph: Graph,
  loss: string,
  inputs: Record<string, Float32Array | Uint32Array>,
  parameters: ParameterValues,
  seed = 0,
): Promise<{
  outputs: Record<string, Float32Array>;
  gradients: Map<string, Float32Array>;
  statistics: Map<string, Float32Array>;
}> {
  await tf.setBackend('cpu');
  const variables = new Map<number, tf.Variable>();
  for (const n of graph.nodes)
    if (n.op === 'parameter')
      variables.set(n.id, tf.variable(tf.tensor(parameters.get(n.name!)!.data, [...n.shape])));
  const averaged = new Set(
    graph.nodes.filter((n) => n.op === 'batchNormStatistics').flatMap((n) => n.inputs.slice(3)),
  );
  const trained = [...variables].filter(([id]) => !averaged.has(id)).map(([, v]) => v);
  const kept: Record<string, T> = {};
  const statistics = new Map<string, T>();
  const run = (): tf.Scalar => {
    const values: (T | Statistics)[] = [];
    for (const node of graph.nodes) values.push(apply(graph, node, values, inputs, variables, seed));
    for (const [name, id] of graph.outputs) kept[name] = tf.keep((values[id] as T).clone());
    for (const n of graph.nodes) {
      if (n.op !== 'batchNormStatistics') continue;
      const { mean, variance } = values[n.id] as Statistics;
      const rows = graph
        .node(n.inputs[0])
        .shape.slice(0, -1)
        .reduce((a, b) => a * b, 1);
      statistics.set(graph.node(n.inputs[3]).name!, tf.keep(mean.clone()));
      statistics.set(graph.node(n.inputs[4]).name!, tf.keep(variance.mul(rows / (rows - 1))));
    }
    return (values[graph.outputs.get(loss)!] as T).asScalar();
  };
  const { grads } = tf.variableGrads(run, trained);
  const out = {
    outputs: Object.fromEntries(Object.entries(kept).map(([k, v]) => [k, v.dataSync() as Float32Array])),
    gradients: new Map(
      [...variables]
        .filter(([, v]) => grads[v.name])
        .map(([id, v]) => [graph.node(id).name!, grads[v.name].dataSync() as Float32Array]),
    ),
    statistics: new Map([...statistics].map(([k, v]) => [k, v.dataSync() as Float32Array])),
  };
  tf.disposeVariables();
  return out;
}

/** Axes of [N, H, W, C] in the order of flattening. */
const AXES: Record<FlattenOrder, number[]> = {
  chw: [0, 3, 1, 2],
  hwc: [0, 1, 2, 3],
  whc: [0, 2, 1, 3],
  cwh: [0, 3, 2, 1],
};
const flat = (x: T, order: FlattenOrder): T => {
  const turned = x.rank === 4 ? tf.transpose(x, AXES[order]) : x;
  return turned.reshape([x.shape[0], -1]);
};

function apply(
  graph: Graph,
  node: Node,
  values: (T | Statistics)[],
  inputs: Record<string, Float32Array | Uint32Array>,
  variables: Map<number, tf.Variable>,
  seed: number,
): T | Statistics {
  const [x, second, third, fourth] = node.inputs.map((id) => values[id] as T);
  const a = node.attributes;
  switch (node.op) {
    case 'input': {
      const data = inputs[node.name!];
      return data instanceof Uint32Array
        ? tf.tensor(Int32Array.from(data), [...node.shape], 'int32')
        : tf.tensor(data, [...node.shape]);
    }
    case 'parameter':
      return variables.get(node.id)!;
    case 'conv2d': {
      const y = conv(x as tf.Tensor4D, second as tf.Tensor4D, a);
      return a.hasBias ? y.add(third) : y;
    }
    case 'dense': {
      const order = graph.node(node.inputs[1]).attributes.flatten?.order ?? 'hwc';
      const y = tf.matMul(flat(x, order) as tf.Tensor2D, second as tf.Tensor2D, false, true);
      return a.hasBias ? y.add(third) : y;
    }
    case 'batchNormStatistics': {
      const axes = x.shape.map((_, i) => i).slice(0, -1);
      const mean = x.mean(axes);
      return { mean, variance: x.sub(mean).square().mean(axes), eps: a.eps! };
    }
    case 'batchNormRunning':
      return { mean: third, variance: fourth, eps: a.eps! };
    case 'batchNormApply': {
      const s = values[node.inputs[1]] as Statistics;
      return x.sub(s.mean).div(s.variance.add(s.eps).sqrt()).mul(third).add(fourth);
    }
    case 'prelu':
      return tf.prelu(x, second);
    case 'relu':
      return tf.relu(x);
    case 'add':
      return x.add(second);
    case 'mul':
      return x.mul(second);
    case 'scale':
      return x.mul(a.value!);
    case 'maxPool':
    case 'avgPool': {
      const { kernel = 1, stride = 1, padding = 0 } = a;
      const [, h, w] = x.shape;
      const over = (size: number, out: number) => Math.max(0, (out - 1) * stride + kernel - size - padding);
      const pads: [number, number][] = [
        [0, 0],
        [padding, over(h!, node.shape[1])],
        [padding, over(w!, node.shape[2])],
        [0, 0],
      ];
      const max = node.op === 'maxPool';
      const padded = tf.pad(x, pads, max ? -1e30 : 0) as tf.Tensor4D;
      return (max ? tf.maxPool : tf.avgPool)(padded, kernel, stride, 'valid');
    }
    case 'globalAvgPool':
      return x.mean([1, 2]);
    case 'softmax':
      return tf.softmax(x);
    case 'l2Normalize':
      return x.div(x.square().sum(-1, true).sqrt().maximum(a.eps!));
    case 'flatten':
      return flat(x, a.order!);
    case 'flip':
      return tf.reverse(x, 2);
    case 'dropout': {
      const c = node.shape[node.shape.length - 1];
      const cp = Math.ceil(c / 4) * 4;
      const mask = Float32Array.from({ length: x.size }, (_, i) =>
        dropoutKeeps(Math.floor(i / c) * cp + (i % c), a.salt!, seed, a.rate!) ? 1 / (1 - a.rate!) : 0,
      );
      return x.mul(tf.tensor(mask, x.shape));
    }
    case 'softmaxCrossEntropy': {
      const c = x.shape[x.shape.length - 1];
      const known = second.less(tf.scalar(c, 'int32')).cast('float32');
      const hot = tf.oneHot(second.cast('int32'), c);
      const each = tf.logSoftmax(x).mul(hot).sum(-1).mul(known);
      return each.sum().div(known.sum()).neg();
    }
    case 'smoothL1': {
      const d = x.sub(second).abs();
      const b = a.beta!;
      const m = d.minimum(b);
      return m
        .mul(d.sub(m.div(2)))
        .div(b)
        .mean();
    }
    default:
      throw new Error(`tfjs: no ${node.op}`);
  }
}

function conv(x: tf.Tensor4D, w: tf.Tensor4D, a: Node['attributes']): T {
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = a;
  const padded = tf.pad(x, [
    [0, 0],
    [padding, padding],
    [padding, padding],
    [0, 0],
  ]) as tf.Tensor4D;
  const [o, i] = w.shape;
  if (groups === padded.shape[3] && groups === o && i === 1)
    return tf.depthwiseConv2d(padded, tf.transpose(w, [2, 3, 0, 1]), stride, 'valid', 'NHWC', dilation);
  const filter = tf.transpose(w, [2, 3, 1, 0]);
  const one = (p: tf.Tensor4D, f: tf.Tensor4D) => tf.conv2d(p, f, stride, 'valid', 'NHWC', dilation);
  if (groups === 1) return one(padded, filter);
  const parts = tf.split(padded, groups, 3);
  const filters = tf.split(filter, groups, 3);
  return tf.concat(
    parts.map((p, g) => one(p as tf.Tensor4D, filters[g] as tf.Tensor4D)),
    3,
  );
}
