import type { KernelCall } from '../gpu/kernel_call.js';
import { conv2dExpand, takesExpand } from '../kernels/conv2d/expand.js';
import type { Conv2dShape } from '../kernels/conv2d/types.js';
import type { Node } from './graph.js';
import { convolutionShape, type LowerContext, type Lowering } from './lowering.js';

/** A 1×1 layer and the depthwise filter after it: x, then weight, bias and slope of each. */
export const expandDepthwise: Lowering = (node, ctx) => {
  const [x, w, bias, slope, taps, ...vectors] = node.inputs;
  const [from, weight, filter] = [x, w, taps].map((id) => ctx.node(id).shape);
  const map = [...from.slice(0, 3), weight[0]];
  const call = {
    shape: convolutionShape(map, filter, node.shape, node.attributes),
    x: ctx.operand(x),
    weight: weightOf(w, ctx),
    rows: ctx.rows([taps, ...vectors, bias, slope]),
    map: ctx.temporary(map, ctx.precision),
    y: ctx.operand(node.id),
  };
  return conv2dExpand(call, ctx);
};

/** In a graph with such pairs, what could be half of one goes by the same pipeline. */
export function withExpand<R>(
  node: Node,
  shape: Conv2dShape,
  ctx: LowerContext<R>,
): KernelCall<R>[] | undefined {
  const { hasBias, activation, hasResidual } = node.attributes;
  const [from, w, bias, slope, added] = node.inputs;
  const y = ctx.operand(node.id);
  const isHalf = ctx.expands && hasBias && activation === 'prelu' && takesExpand(shape, ctx.traits);
  // Another storage type than the others' would be another pipeline.
  if (!isHalf || y.dtype !== ctx.precision) return undefined;
  const x = ctx.operand(from);
  if (shape.groups === 1) {
    const residual = hasResidual ? ctx.operand(added) : undefined;
    const call = { shape, x, residual, map: y, weight: weightOf(w, ctx), rows: ctx.rows([bias, slope]) };
    return conv2dExpand(call, ctx);
  }
  if (hasResidual) return undefined;
  const rows = ctx.rows([w, bias, slope, bias, slope]);
  return conv2dExpand({ shape, map: x, y, weight: ctx.parameter(w, 'f32'), rows }, ctx);
}

const weightOf = <R>(id: number, ctx: LowerContext<R>): R =>
  ctx.parameter(id, ctx.precision === 'f16' ? 'f16pairs' : 'f32');
