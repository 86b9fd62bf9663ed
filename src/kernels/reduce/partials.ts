/**
 * The second pass of every split reduction:
 *
 *   y[i] = Σ_{s < splits} partial[s, i]          partial: f32 [splits, 4·quads], y: f32 [4·quads]
 *
 * Always in the same order, so that two runs give the same bits; atomics would not.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid } from '../tensor.js';

const SIZE = 64;

/** @param quads vec4 elements of y. */
export function sumPartials<B>(partial: B, splits: number, quads: number, y: B): KernelCall<B> {
  return {
    label: 'reduce.partials',
    uniforms: { count: u32(quads), splits: u32(splits) },
    buffers: [
      { name: 'partial', ref: partial, element: 'vec4<f32>', write: false },
      { name: 'y', ref: y, element: 'vec4<f32>', write: true },
    ],
    body: `${eachItem(SIZE)}
  var sum = vec4<f32>(0.0);
  var at = i;
  for (var s = 0u; s < params.splits; s++) {
    sum += partial[at];
    at += params.count;
  }
  y[i] = sum;
}`,
    workgroups: grid(quads, SIZE),
    flops: 4 * quads * splits,
    bytes: 16 * quads * (splits + 1),
  };
}
