import type { KernelCall } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import { conv2dForward } from '../kernels/conv2d/forward.js';
import { planConv2d } from '../kernels/conv2d/plan.js';
import type { Activation, Conv2dPlan, Conv2dShape } from '../kernels/conv2d/types.js';
import { add, affine, batchNorm, flip, mul, prelu, relu } from '../kernels/elementwise/forward.js';
import { flatten } from '../kernels/flatten/forward.js';
import { l2Normalize } from '../kernels/l2norm/forward.js';
import { avgPool, globalAvgPool, maxPool } from '../kernels/pool/forward.js';
import { softmax } from '../kernels/softmax/forward.js';
import type { Node } from './graph.js';
import { expandDepthwise, withExpand } from './lower_expand.js';
import { convolutionShape, denseShape, type LowerContext, type Lowering, window } from './lowering.js';
import { convolved } from './shapes.js';

/** A depthwise layer's plan as a training step takes it: higher strips on a software adapter, for longer compilation. */
export const trainingStrip = (plan: Conv2dPlan, traits: DeviceTraits): Conv2dPlan =>
  traits.kind === 'cpu' ? { ...plan, tile: { ...plan.tile, rows: 4 } } : plan;

/** A step that runs for hours takes the tile that is fastest once compiled; the planner's choice counts compiling in. */
function planFor<R>(node: Node, shape: Conv2dShape, ctx: LowerContext<R>): Conv2dPlan {
  const { fixedWeights } = ctx;
  // Features and logits of a training step stay f32.
  const precision = node.op === 'dense' && !fixedWeights ? 'f32' : ctx.precision;
  const plan = planConv2d(shape, ctx.traits, { precision, fixedWeights, pool: node.attributes.pool });
  if (!fixedWeights && plan.tile.columns) return trainingStrip(plan, ctx.traits);
  const pixels = shape.batch * shape.outHeight * shape.outWidth;
  if (fixedWeights || plan.variant !== 'subgroup' || plan.tile.width !== 4) return plan;
  return pixels < 64 * plan.tile.lanes ? plan : { ...plan, tile: { ...plan.tile, blocks: 4 } };
}

function convolution<R>(node: Node, shape: Conv2dShape, ctx: LowerContext<R>): KernelCall<R>[] {
  const { attributes: a, inputs } = node;
  const plan = planFor(node, shape, ctx);
  let next = 2;
  const bias = a.hasBias ? ctx.parameter(inputs[next++], 'f32') : undefined;
  const activation: Activation = a.activation ?? 'none';
  const slope = activation === 'prelu' ? ctx.parameter(inputs[next++], 'f32') : undefined;
  const residual = a.hasResidual ? ctx.operand(inputs[next++]) : undefined;
  let x = ctx.operand(inputs[0]);
  const before: KernelCall<R>[] = [];
  let inputAffine: { scale: R; shift: R } | undefined;
  if (a.hasInputAffine) {
    const [scale, shift] = [inputs[next++], inputs[next++]].map((id) => ctx.parameter(id, 'f32'));
    if (plan.variant === 'winograd') inputAffine = { scale, shift };
    else {
      const mapped = ctx.temporary(x.shape, x.dtype);
      before.push(...affine(x, scale, shift, mapped));
      x = mapped;
    }
  }
  const weight = ctx.parameter(inputs[1], plan.packing);
  let y = ctx.operand(node.id);
  const after: KernelCall<R>[] = [];
  const pool = plan.variant === 'pooled' ? a.pool : undefined;
  if (a.pool && !pool) {
    const map = ctx.temporary([shape.batch, shape.outHeight, shape.outWidth, shape.outChannels], y.dtype);
    after.push(...maxPool(map, y, { ...a.pool, padding: 0 }));
    y = map;
  }
  const isSoft = plan.variant === 'narrow' && a.softmax;
  if (a.softmax && !isSoft) {
    const logits = ctx.temporary(ctx.node(node.id).shape, y.dtype);
    after.push(...softmax(logits, y));
    y = logits;
  }
  const { temporary } = ctx;
  const call = {
    shape,
    x,
    weight,
    bias,
    slope,
    activation,
    residual,
    inputAffine,
    pool,
    softmax: isSoft,
    y,
    temporary,
  };
  return [...before, ...conv2dForward(call, plan, ctx.traits), ...after];
}

const layer = <R>(node: Node, shape: Conv2dShape, ctx: LowerContext<R>): KernelCall<R>[] =>
  withExpand(node, shape, ctx) ?? convolution(node, shape, ctx);

const conv2d: Lowering = (node, ctx) => {
  const [x, w] = node.inputs.map((id) => ctx.node(id).shape);
  const y = convolved(x, w, node.attributes);
  return layer(node, convolutionShape(x, w, y, node.attributes), ctx);
};

const dense: Lowering = (node, ctx) => {
  const [x, w] = node.inputs.map((id) => ctx.node(id).shape);
  return layer(node, denseShape(x, w), ctx);
};

/** The kernels of every op of a net that is run; those that only training needs are in lower_training.ts. */
export const LOWERINGS = {
  conv2d,
  expandDepthwise,
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
} satisfies Record<string, Lowering>;
