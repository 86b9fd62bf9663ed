import { WfrError } from '../gpu/errors.js';
import type { ConvPool } from '../kernels/conv2d/types.js';
import type { Margin } from '../kernels/margin_loss/margin.js';
import type { MtcnnLossOptions } from '../kernels/mtcnn_loss/tasks.js';
import type { FlattenedMap, FlattenOrder, ParameterLayout } from '../kernels/packing.js';

/** Every attribute an op may have; which ones an op reads is in its builder in graph.ts. */
export interface OpAttributes {
  shape?: readonly number[];
  layout?: ParameterLayout;
  flatten?: FlattenedMap;
  stride?: number;
  padding?: number;
  dilation?: number;
  groups?: number;
  hasBias?: boolean;
  kernel?: number;
  ceil?: boolean;
  eps?: number;
  order?: FlattenOrder;
  /** Inputs: `u32` for labels and indices, which take no part in arithmetic. */
  dtype?: 'u32';
  /** Dropout: the share of elements that is dropped, and what tells this dropout from the graph's others. */
  rate?: number;
  salt?: number;
  /** scale: the factor. */
  value?: number;
  /** smoothL1: where the parabola ends. */
  beta?: number;
  /** distillLoss: weights of the cosines and of the similarities. */
  cosineWeight?: number;
  relationWeight?: number;
  margin?: Margin;
  /** marginLossBackward: how many weights there are. */
  chunks?: number;
  /** gatherClassesBackward: the first class of the weight. */
  first?: number;
  /** mtcnnLoss: weights of its tasks and the share of samples that count. */
  multiTask?: MtcnnLossOptions;
  /** part: which of its owner's further outputs. */
  index?: number;
  /** Batch norm by running averages: its statistics do not depend on the batch. */
  fixed?: boolean;
  /** Gradients of the input of batch norms, convolutions and dense layers: one from elsewhere, last in `inputs`, is added. */
  hasExtra?: boolean;
  /** Epilogue of a convolution, dense layer or batch norm after fusion; its operands follow in `inputs`. maxPool in training: before it. */
  activation?: 'none' | 'relu' | 'prelu';
  /** Fused `+ residual`, before the activation or (iResNet, MobileFaceNet: activation none) after it. */
  hasResidual?: boolean;
  /** conv2d: x·scale + shift before it, padding staying zero; the two vectors come last in `inputs`. */
  hasInputAffine?: boolean;
  /** conv2d, dense: softmax over the last axis, at most four channels, after everything else. */
  softmax?: boolean;
  /** conv2d: max pooling (ceil mode or not) of its activated output. */
  pool?: ConvPool & { ceil: boolean };
}

type Shape = readonly number[];
type Rule = (inputs: readonly Shape[], attributes: OpAttributes, fail: (why: string) => never) => Shape;

const same: Rule = ([x]) => x;

const last = (shape: Shape): number => shape[shape.length - 1];

const sameBoth: Rule = ([a, b], _, fail) =>
  a.length === b.length && a.every((n, i) => n === b[i])
    ? a
    : fail(`operands of shapes [${a}] and [${b}] differ`);

const perChannel: Rule = ([x, ...parameters], _, fail) => {
  for (const p of parameters) {
    if (p.length !== 1 || p[0] !== x[x.length - 1])
      fail(`a parameter of shape [${p}] does not fit [${x}]: one value a channel is needed`);
  }
  return x;
};

export const convSize = (
  size: number,
  kernel: number,
  stride: number,
  padding: number,
  dilation: number,
): number => Math.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;

/** PyTorch's pooled size: with `ceil`, a last window that would begin inside the right padding is dropped. */
export function poolSize(
  size: number,
  kernel: number,
  stride: number,
  padding: number,
  ceil: boolean,
): number {
  if (!ceil) return Math.floor((size + 2 * padding - kernel) / stride) + 1;
  const out = Math.ceil((size + 2 * padding - kernel) / stride) + 1;
  return (out - 1) * stride >= size + padding ? out - 1 : out;
}

const pool: Rule = ([x], a, fail) => {
  if (x.length !== 4) fail(`pooling needs a map [N,H,W,C], got [${x}]`);
  const [n, h, w, c] = x;
  const out = [
    n,
    poolSize(h, a.kernel!, a.stride!, a.padding!, a.ceil!),
    poolSize(w, a.kernel!, a.stride!, a.padding!, a.ceil!),
    c,
  ];
  if (out.some((v) => v < 1)) fail(`a ${a.kernel}×${a.kernel} window does not fit a ${h}×${w} map`);
  return out;
};

/** What a convolution gives, before pooling where that is fused into it. */
export const convolved = ([n, h, w]: Shape, [o, , kh, kw]: Shape, a: OpAttributes): Shape => [
  n,
  convSize(h, kh, a.stride!, a.padding!, a.dilation!),
  convSize(w, kw, a.stride!, a.padding!, a.dilation!),
  o,
];

const conv2d: Rule = ([x, w, bias], a, fail) => {
  if (x.length !== 4 || w.length !== 4)
    fail(`convolution needs a map [N,H,W,C] and a filter [O,I,kh,kw], got [${x}] and [${w}]`);
  const [, h, width, c] = x;
  const [o, i, kh, kw] = w;
  const groups = a.groups!;
  if (c % groups || o % groups || i !== c / groups)
    fail(`filter [${w}] in ${groups} group(s) does not fit ${c} channels`);
  if (bias && a.hasBias && (bias.length !== 1 || bias[0] !== o))
    fail(`bias [${bias}] does not fit ${o} filters`);
  const out = convolved(x, w, a);
  if (out.some((v) => v < 1))
    fail(`a ${kh}×${kw} filter does not fit a ${h}×${width} map with padding ${a.padding}`);
  return a.pool ? pool([out], { ...a.pool, padding: 0 }, fail) : out;
};

const dense: Rule = ([x, w], _, fail) => {
  const features = x.slice(1).reduce((p, v) => p * v, 1);
  if (w.length !== 2 || w[1] !== features)
    fail(`dense weight [${w}] does not fit [${x}] (${features} features)`);
  return [x[0], w[0]];
};

const statistics: Rule = (inputs, a, fail) => {
  perChannel(inputs, a, fail);
  const [x] = inputs;
  if (x.slice(0, -1).reduce((p, v) => p * v, 1) < 2)
    fail(`batch statistics need more than one value a channel, [${x}] has one: use a larger batch`);
  return [4, x[x.length - 1]];
};

const crossEntropy: Rule = ([x, labels], _, fail) => {
  const rows = x.slice(0, -1);
  if (labels.length !== rows.length || labels.some((n, i) => n !== rows[i]))
    fail(`labels [${labels}] do not fit logits [${x}]: one label a row is needed`);
  return [1];
};

const distill: Rule = ([unit, teacher], a, fail) => {
  if (unit.length !== 2 || teacher.length !== 2 || unit[0] !== teacher[0])
    fail(`embeddings [${unit}] and their teacher's [${teacher}] do not fit: one row a picture is needed`);
  if (a.cosineWeight !== 0 && unit[1] !== teacher[1])
    fail(`cosines of [${unit}] and [${teacher}] cannot be taken: project one to the other's length`);
  return [1];
};

const margin: Rule = ([unit, labels], _, fail) => {
  if (unit.length !== 2 || labels.length !== 1 || labels[0] !== unit[0])
    fail(`labels [${labels}] do not fit embeddings [${unit}]: one label a row is needed`);
  return [1];
};

/** Given by whoever adds the node: gradients, and what an op leaves beside its result. */
const given: Rule = (_, a) => a.shape!;

/** The shape rule of every op. */
const RULES = {
  input: given,
  parameter: given,
  part: given,
  conv2d,
  expandDepthwise: ([x, , , , w], a) => convolved(x, w, a),
  dense,
  batchNorm: perChannel,
  prelu: perChannel,
  relu: same,
  add: sameBoth,
  mul: sameBoth,
  maxPool: pool,
  avgPool: pool,
  globalAvgPool: ([x]) => [x[0], x[3]],
  softmax: same,
  l2Normalize: same,
  flatten: ([x]) => [x[0], x.slice(1).reduce((p, v) => p * v, 1)],
  flip: same,

  // Training: what the forward pass needs beside the above.
  batchNormStatistics: statistics,
  batchNormRunning: ([c]) => [4, c[0]],
  batchNormApply: same,
  batchNormConv2d: ([x, , , , , w], a, fail) => conv2d([x, w], a, fail),
  dropout: same,
  scale: same,
  softmaxCrossEntropy: crossEntropy,
  smoothL1: (inputs, a, fail) => {
    sameBoth(inputs, a, fail);
    return [1];
  },

  distillLoss: distill,
  marginLoss: margin,
  gatherClasses: given,

  // Backward, appended by gradient.ts.
  lossGradient: () => [1],
  conv2dGradInput: given,
  conv2dGradWeight: given,
  denseGradInput: given,
  denseGradWeight: given,
  channelSum: ([dy]) => [dy[dy.length - 1]],
  batchNormBackward: same,
  batchNormConv2dBackward: same,
  preluBackward: same,
  reluBackward: same,
  maxPoolBackward: given,
  avgPoolBackward: given,
  globalAvgPoolBackward: given,
  softmaxBackward: same,
  l2NormalizeBackward: same,
  flattenBackward: given,
  mtcnnLoss: ([logits, box, tasks, boxTarget], _, fail) => {
    const n = logits[0];
    if (
      last(logits) !== 2 ||
      last(box) !== 4 ||
      last(boxTarget) !== 4 ||
      [box, tasks, boxTarget].some((s) => s[0] !== n)
    )
      fail(
        `logits [${logits}], boxes [${box}], tasks [${tasks}] and targets [${boxTarget}] do not fit together`,
      );
    return [1];
  },
  softmaxCrossEntropyBackward: same,
  mtcnnLossBackward: same,
  smoothL1Backward: same,
  distillLossBackward: same,
  marginLossBackward: same,
  gatherClassesBackward: given,
} satisfies Record<string, Rule>;

export type OpName = keyof typeof RULES;

/** @throws WfrError naming the place and the shapes when they do not fit. */
export function inferShape(
  op: OpName,
  inputs: readonly Shape[],
  attributes: OpAttributes,
  where: string,
): Shape {
  const fail = (why: string): never => {
    throw new WfrError(`${where}: ${op}: ${why}`);
  };
  const shape = (RULES[op] as Rule)(inputs, attributes, fail);
  if (shape.some((n) => !Number.isInteger(n) || n < 1))
    fail(`shape [${shape}] is not made of positive integers`);
  return shape;
}
