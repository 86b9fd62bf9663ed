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
/** Partial sums from which several invocations share an element: one alone waits for each of its loads. */
const MANY = 64;
/** Elements and lanes of a workgroup then. */
const SIDE = 16;

/** @param quads vec4 elements of y. */
export function sumPartials<B>(partial: B, splits: number, quads: number, y: B): KernelCall<B> {
  const many = splits >= MANY;
  return {
    label: 'reduce.partials',
    uniforms: { count: u32(quads), splits: u32(splits) },
    buffers: [
      { name: 'partial', ref: partial, element: 'vec4<f32>', write: false },
      { name: 'y', ref: y, element: 'vec4<f32>', write: true },
    ],
    body: many ? SHARED : ALONE,
    workgroups: many ? grid(quads, SIDE) : grid(quads, SIZE),
    flops: 4 * quads * splits,
    bytes: 16 * quads * (splits + 1),
  };
}

const ALONE = `${eachItem(SIZE)}
  var sum = vec4<f32>(0.0);
  var at = i;
  for (var s = 0u; s < params.splits; s++) {
    sum += partial[at];
    at += params.count;
  }
  y[i] = sum;
}`;

const SHARED = `
var<workgroup> sums: array<vec4<f32>, ${SIDE * SIDE}>;
@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = (group.x + group.y * groups.x) * ${SIDE}u + t % ${SIDE}u;
  let lane = t / ${SIDE}u;
  var sum = vec4<f32>(0.0);
  if (i < params.count) {
    for (var s = lane; s < params.splits; s += ${SIDE}u) { sum += partial[s * params.count + i]; }
  }
  sums[t] = sum;
  for (var half = ${SIDE / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { sums[t] += sums[t + half * ${SIDE}u]; }
  }
  if (lane == 0u && i < params.count) { y[i] = sums[t]; }
}`;
