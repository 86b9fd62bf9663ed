/**
 * Smooth L1 (Girshick 2015, Huber's loss over β), mean over all elements of x and a target of its shape, d = x − t:
 *
 *   l = d²/(2β) where |d| < β, |d| − β/2 elsewhere      dx = clamp(d/β, −1, 1)·dL/count
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, type Operand, product, quadsOf, read, write } from '../tensor.js';

const SIZE = 64;
/** Partial sums of the first kernel; the second adds them in order. */
const PARTS = 64;

export function smoothL1<B>(
  x: Operand<B>,
  target: Operand<B>,
  beta: number,
  loss: Operand<B>,
  temporary: (shape: readonly number[], dtype: 'f32') => Operand<B>,
): KernelCall<B>[] {
  const count = quadsOf(x.shape);
  const parts = temporary([PARTS, 1], 'f32');
  return [
    {
      label: 'smoothL1.parts',
      uniforms: { count: u32(PARTS), total: u32(count), beta: f32(beta) },
      buffers: [read('x', x), read('goal', target), write('parts', parts)],
      // Padding is zero on both sides and adds nothing.
      body: `${eachItem(8)}
  var sum = vec4<f32>(0.0);
  for (var k = i; k < params.total; k += params.count) {
    let d = abs(load_x(k) - load_goal(k));
    sum += select(d - 0.5 * params.beta, 0.5 * d * d / params.beta, d < vec4<f32>(params.beta));
  }
  store_parts(i, vec4<f32>(dot(sum, vec4<f32>(1.0)), 0.0, 0.0, 0.0));
}`,
      workgroups: grid(PARTS, 8),
      flops: count * 4 * 5,
      bytes: count * 32,
    },
    {
      label: 'smoothL1.mean',
      uniforms: { parts: u32(PARTS), scale: f32(1 / product(x.shape)) },
      buffers: [read('parts', parts), write('loss', loss)],
      body: `
@compute @workgroup_size(1)
fn main() {
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < params.parts; i++) { sum += load_parts(i); }
  store_loss(0u, sum * params.scale);
}`,
      workgroups: [1, 1, 1],
      flops: PARTS,
      bytes: PARTS * 16,
    },
  ];
}

export function smoothL1Backward<B>(
  x: Operand<B>,
  target: Operand<B>,
  beta: number,
  dLoss: Operand<B>,
  dx: Operand<B>,
): KernelCall<B>[] {
  const count = quadsOf(x.shape);
  return [
    {
      label: 'smoothL1.backward',
      uniforms: { count: u32(count), beta: f32(beta), scale: f32(1 / product(x.shape)) },
      buffers: [read('x', x), read('goal', target), read('d_loss', dLoss), write('dx', dx)],
      body: `${eachItem(SIZE)}
  let d = clamp((load_x(i) - load_goal(i)) / params.beta, vec4<f32>(-1.0), vec4<f32>(1.0));
  store_dx(i, d * (params.scale * load_d_loss(0u).x));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * 5,
      bytes: count * 48,
    },
  ];
}
