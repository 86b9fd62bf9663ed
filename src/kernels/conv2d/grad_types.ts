import type { FloatType } from '../../gpu/kernel_call.js';
import type { Operand } from '../tensor.js';
import type { Conv2dShape } from './types.js';

/** Scratch memory that lives for one op's calls only. */
export type Temporary<B> = (shape: readonly number[], dtype: FloatType) => Operand<B>;

/** dx = dL/dx from dy = dL/dy, maps [N, H, W, C] padded as in tensor.ts. */
export interface GradInputCall<B> {
  shape: Conv2dShape;
  dy: Operand<B>;
  /** Packed `f32`, layout conv, depthwise, grouped or dense. */
  weight: B;
  dx: Operand<B>;
  /** A gradient that x has from elsewhere, added to dx. */
  extra?: Operand<B>;
  /** Needed with `extra`. */
  temporary?: Temporary<B>;
}

/** dw = dL/dweight from x and dy = dL/dy. */
export interface GradWeightCall<B> {
  shape: Conv2dShape;
  x: Operand<B>;
  dy: Operand<B>;
  /** f32 in the weight's own packed layout; padding is written as zero. */
  dw: B;
  temporary: Temporary<B>;
}
