import type { FloatType, KernelCall } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import type { PartialStatistics } from '../kernels/batchnorm/partial.js';
import type { Conv2dShape } from '../kernels/conv2d/types.js';
import type { Packing } from '../kernels/packing.js';
import type { Operand } from '../kernels/tensor.js';
import type { Node } from './graph.js';
import type { OpName } from './shapes.js';

/** What a lowering may ask for. `R` names a buffer before memory is planned. */
export interface LowerContext<R> {
  readonly traits: DeviceTraits;
  /** How convolution operands are stored and multiplied; sums are always f32. */
  readonly precision: FloatType;
  /** Weights never change (inference), so that a plan may store them transformed. */
  readonly fixedWeights: boolean;
  /** The graph has `expandDepthwise`, whose pipeline does other layers as well. */
  readonly expands: boolean;
  node(id: number): Node;
  operand(id: number): Operand<R>;
  parameter(id: number, packing: Packing): R;
  /** Parameters in f32 one after the other, rows of one matrix. */
  rows(ids: readonly number[]): R;
  /** Scratch memory that lives for this node's calls only. */
  temporary(shape: readonly number[], dtype: FloatType): Operand<R>;
  /** An input of u32 values. */
  indices(id: number): R;
  /** A further output of a node: where the graph wants it, else scratch memory. */
  part(id: number, index: number, shape: readonly number[]): Operand<R>;
  /** Whether batch norm takes statistics of a node's values. */
  isNormed(id: number): boolean;
  /** Statistics that a node's kernel has left in passing. */
  readonly statistics: Map<number, PartialStatistics<R>>;
  /** The words of the training step (step_words.ts). */
  step(): R;
}

export type Lowering = <R>(node: Node, ctx: LowerContext<R>) => KernelCall<R>[];

/** Lowerings by op; not every table has every op. */
export type Lowerings = { readonly [op in OpName]?: Lowering };

/** Ops that are memory, not work. */
export type MemoryOp = 'input' | 'parameter' | 'part';
export const isMemory = (op: OpName): op is MemoryOp => op === 'input' || op === 'parameter' || op === 'part';

type Shape = readonly number[];

/** The geometry of a convolution from the shapes of input, weight OIHW and output. */
export function convolutionShape(x: Shape, w: Shape, y: Shape, a: Node['attributes']): Conv2dShape {
  const { stride, padding, dilation, groups } = a as Required<typeof a>;
  const [batch, inHeight, inWidth, inChannels] = x;
  const [, outHeight, outWidth, outChannels] = y;
  const [, , kernelHeight, kernelWidth] = w;
  return {
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
}

/** A dense layer is a convolution whose filter covers the whole map; flattening is in the weight's packing. */
export function denseShape(x: Shape, w: Shape): Conv2dShape {
  const [batch, height, width, channels] = x.length === 4 ? x : [x[0], 1, 1, x[1]];
  return {
    batch,
    inHeight: height,
    inWidth: width,
    inChannels: channels,
    outHeight: 1,
    outWidth: 1,
    outChannels: w[0],
    kernelHeight: height,
    kernelWidth: width,
    stride: 1,
    padding: 0,
    dilation: 1,
    groups: 1,
  };
}

export const window = (node: Node) => node.attributes as { kernel: number; stride: number; padding: number };
