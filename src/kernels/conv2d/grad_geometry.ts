import { type Uniform, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, quadsOf } from '../tensor.js';
import { geometryUniforms } from './geometry.js';
import type { GradInputCall } from './grad_types.js';
import type { Conv2dShape } from './types.js';

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/** What the input-gradient kernels read beside the geometry. */
export function gradInputUniforms(s: Conv2dShape): Record<string, Uniform> {
  return {
    ...geometryUniforms(s),
    batch: u32(s.batch),
    /** Of the taps of a class, every how many'th of the filter's is one. */
    tap_step: u32(s.stride / gcd(s.stride, s.dilation)),
  };
}

/** Pixels of the largest class, that of the first pixel. */
export const largestClass = (s: Conv2dShape): number =>
  s.batch * ceilDiv(s.inHeight, s.stride) * ceilDiv(s.inWidth, s.stride);

/**
 * `class_size(size, c)`: rows (or columns) of a map of `size` that are c modulo the stride.
 * `first_tap(shift, taps)`: the first tap k < taps with shift − k·dilation divisible by the stride, else taps.
 * `source(shift, k)`: what to add to a pixel's place in its class to get the output that reaches it through tap k;
 * as an unsigned number that wraps, so that a negative coordinate comes out large.
 */
export const CLASSES = `
fn class_size(size: u32, c: u32) -> u32 { return (size + params.stride - 1u - c) / params.stride; }
fn first_tap(shift: u32, taps: u32) -> u32 {
  var k = 0u;
  while (k < taps && (i32(shift) - i32(k * params.dilation)) % i32(params.stride) != 0) { k++; }
  return k;
}
fn source(shift: u32, k: u32) -> u32 {
  return u32((i32(shift) - i32(k * params.dilation)) / i32(params.stride));
}`;

/**
 * The first tap of the class whose output lies inside the map. Outputs go down from tap to tap, so that the first
 * below zero, a large number, ends the loop: a filter as large as its map costs one tap a pixel, not all of them.
 */
export const REACHING = `
fn reaching_tap(shift: u32, place: u32, taps: u32, outputs: u32) -> u32 {
  let k = first_tap(shift, taps);
  let over = i32(place + source(shift, k)) - i32(outputs) + 1;
  let drop = i32(params.dilation * params.tap_step / params.stride);
  return k + select(0u, u32(over + drop - 1) / u32(drop) * params.tap_step, over > 0);
}`;

/** Each operand once. */
export function gradInputBytes<B>(call: GradInputCall<B>, weightBytes: number): number {
  const { dy, dx } = call;
  return (
    quadsOf(dy.shape) * bytesPerQuad(dy.dtype) + quadsOf(dx.shape) * bytesPerQuad(dx.dtype) + weightBytes
  );
}
