import type { FloatType } from '../../gpu/kernel_call.js';
import type { PartialStatistics } from '../batchnorm/partial.js';
import type { FlattenedMap, Packing } from '../packing.js';
import type { Operand } from '../tensor.js';

/** The geometry of a convolution; a dense layer is one whose filter covers the whole map. */
export interface Conv2dShape {
  batch: number;
  inHeight: number;
  inWidth: number;
  inChannels: number;
  outHeight: number;
  outWidth: number;
  outChannels: number;
  kernelHeight: number;
  kernelWidth: number;
  stride: number;
  padding: number;
  dilation: number;
  groups: number;
}

export type Activation = 'none' | 'relu' | 'prelu';

/** Max pooling after a convolution, without padding; y's shape tells whether in ceil mode. */
export interface ConvPool {
  kernel: number;
  stride: number;
}

/** y = activation(conv(x, weight) + bias) + residual, all [N, H, W, C] operands padded as in tensor.ts. */
export interface Conv2dCall<B> {
  shape: Conv2dShape;
  x: Operand<B>;
  /** Packed as the plan asked for (`packing`), layout conv, depthwise, grouped or dense. */
  weight: B;
  /** [Cp] f32. */
  bias?: B;
  /** PReLU slopes, [Cp] f32. */
  slope?: B;
  activation: Activation;
  residual?: Operand<B>;
  /** x·scale + shift before the convolution, [Cp] f32 each; only where the plan is `winograd`. */
  inputAffine?: { scale: B; shift: B };
  /** Batch norm with PReLU before a depthwise convolution (norm_depthwise.ts): rows of scale and shift, [Cp] slopes. */
  norm?: { statistics: B; slope: B };
  /** Maxima of the activated outputs over windows, y being the pooled map; only where the plan is `pooled`. */
  pool?: ConvPool;
  /** Softmax over the outputs of a pixel, at most four; only where the plan is `narrow`. */
  softmax?: boolean;
  y: Operand<B>;
  /** Batch norm's statistics of y, strip by strip, to be left in passing by a depthwise convolution without an epilogue. */
  statistics?: PartialStatistics<B>;
  /** Scratch memory that lives for these calls only; `winograd` needs it. */
  temporary?: (shape: readonly number[], dtype: FloatType) => Operand<B>;
}

/** What the plan decided for a shape on a device. */
export interface Conv2dPlan {
  variant:
    | 'direct'
    | 'depthwise'
    | 'grouped'
    | 'matrix'
    | 'narrow'
    | 'pooled'
    | 'runs'
    | 'subgroup'
    | 'tiled'
    | 'winograd';
  packing: Packing;
  /** Tile constants of the variant, free-form, e.g. { a: 4, b: 3 }. */
  tile: Readonly<Record<string, number>>;
  /**
   * One pipeline with and without a residual, told by a uniform (`subgroup`, `winograd`; needs `temporary`). Where it is
   * off or the variant another, a call compiles to what it has.
   */
  optionalResidual?: boolean;
}

export type { FlattenedMap };
