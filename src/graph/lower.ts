import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import { conv2dForward } from '../kernels/conv2d/forward.js';
import { planConv2d } from '../kernels/conv2d/plan.js';
import type { Activation, Conv2dShape } from '../kernels/conv2d/types.js';
import { add, batchNorm, flip, mul, prelu, relu } from '../kernels/elementwise/forward.js';
import { flatten } from '../kernels/flatten/forward.js';
import { l2Normalize } from '../kernels/l2norm/forward.js';
import type { Packing } from '../kernels/packing.js';
import { avgPool, globalAvgPool, maxPool } from '../kernels/pool/forward.js';
import { softmax } from '../kernels/softmax/forward.js';
import type { Operand } from '../kernels/tensor.js';
import type { Node } from './graph.js';
import type { OpName } from './shapes.js';

/** What a lowering may ask for. `R` names a buffer before memory is planned. */
export interface LowerContext<R> {
  readonly traits: DeviceTraits;
  /** How convolution operands are stored and multiplied; sums are always f32. */
  readonly precision: FloatType;
  node(id: number): Node;
  operand(id: number): Operand<R>;
  parameter(id: number, packing: Packing): R;
  /** Scratch memory that lives for this node's calls only. */
  temporary(shape: readonly number[], dtype: FloatType): Operand<R>;
}

type Lowering = <R>(node: Node, ctx: LowerContext<R>) => KernelCall<R>[];

function convolution<R>(node: Node, shape: Conv2dShape, ctx: LowerContext<R>): KernelCall<R>[] {
  const { attributes: a, inputs } = node;
  const plan = planConv2d(shape, ctx.traits, { precision: ctx.precision });
  let next = 2;
  const bias = a.hasBias ? ctx.parameter(inputs[next++], 'f32') : undefined;
  const activation: Activation = a.activation ?? 'none';
  const slope = activation === 'prelu' ? ctx.parameter(inputs[next++], 'f32') : undefined;
  const residual = a.hasResidual ? ctx.operand(inputs[next++]) : undefined;
  const x = ctx.operand(inputs[0]);
  const weight = ctx.parameter(inputs[1], plan.packing);
  const y = ctx.operand(node.id);
  return conv2dForward({ shape, x, weight, bias, slope, activation, residual, y }, plan, ctx.traits);
}

const conv2d: Lowering = (node, ctx) => {
  const [batch, inHeight, inWidth, inChannels] = ctx.node(node.inputs[0]).shape;
  const [outChannels, , kernelHeight, kernelWidth] = ctx.node(node.inputs[1]).shape;
  const [, outHeight, outWidth] = node.shape;
  const { stride, padding, dilation, groups } = node.attributes as Required<typeof node.attributes>;
  const shape = {
    batch,
    inHeight,
    inWidth,
    inChannels,
    outHeight,
    outWidth,
    outChannels,
    kernelHeight,
    kernelWidth,
    stride,
    padding,
    dilation,
    groups,
  };
  return convolution(node, shape, ctx);
};

/** A dense layer is a convolution whose filter covers the whole map; flattening is in the weight's packing. */
const dense: Lowering = (node, ctx) => {
  const x = ctx.node(node.inputs[0]).shape;
  const [batch, height, width, channels] = x.length === 4 ? x : [x[0], 1, 1, x[1]];
  const shape = {
    batch,
    inHeight: height,
    inWidth: width,
    inChannels: channels,
    outHeight: 1,
    outWidth: 1,
    outChannels: node.shape[1],
    kernelHeight: height,
    kernelWidth: width,
    stride: 1,
    padding: 0,
    dilation: 1,
    groups: 1,
  };
  return convolution(node, shape, ctx);
};

const window = (node: Node) => node.attributes as { kernel: number; stride: number; padding: number };

/** The kernels of every op. `input` and `parameter` are memory, not work. */
export const LOWERINGS: Record<Exclude<OpName, 'input' | 'parameter'>, Lowering> = {
  conv2d,
  dense,
  batchNorm: (n, c) => {
    const [weight, bias, mean, variance] = n.inputs.slice(1).map((id) => c.parameter(id, 'f32'));
    return batchNorm(
      c.operand(n.inputs[0]),
      { weight, bias, mean, variance },
      n.attributes.eps!,
      c.operand(n.id),
    );
  },
  prelu: (n, c) => prelu(c.operand(n.inputs[0]), c.parameter(n.inputs[1], 'f32'), c.operand(n.id)),
  relu: (n, c) => relu(c.operand(n.inputs[0]), c.operand(n.id)),
  add: (n, c) => add(c.operand(n.inputs[0]), c.operand(n.inputs[1]), c.operand(n.id)),
  mul: (n, c) => mul(c.operand(n.inputs[0]), c.operand(n.inputs[1]), c.operand(n.id)),
  maxPool: (n, c) => maxPool(c.operand(n.inputs[0]), c.operand(n.id), window(n)),
  avgPool: (n, c) => avgPool(c.operand(n.inputs[0]), c.operand(n.id), window(n)),
  globalAvgPool: (n, c) => globalAvgPool(c.operand(n.inputs[0]), c.operand(n.id)),
  softmax: (n, c) => softmax(c.operand(n.inputs[0]), c.operand(n.id)),
  l2Normalize: (n, c) => l2Normalize(c.operand(n.inputs[0]), n.attributes.eps!, c.operand(n.id)),
  flatten: (n, c) => flatten(c.operand(n.inputs[0]), n.attributes.order!, c.operand(n.id)),
  flip: (n, c) => flip(c.operand(n.inputs[0]), c.operand(n.id)),
};
