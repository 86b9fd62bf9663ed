import { type BufferBinding, u32 } from '../../gpu/kernel_call.js';
import { read, vector, write } from '../tensor.js';
import type { Conv2dCall, Conv2dPlan } from './types.js';

/**
 * What stands for the residual: its own operand, or where there is none and the plan wants one pipeline for both, memory
 * that is bound and not read. The uniform `adds` tells the kernel.
 */
export function optionalResidual<B>(call: Conv2dCall<B>, plan: Conv2dPlan) {
  if (!plan.optionalResidual || call.residual) return call.residual;
  if (!call.temporary) throw new Error('a convolution with an optional residual needs scratch memory');
  return call.temporary([4], call.y.dtype);
}

export const addsUniform = <B>(call: Conv2dCall<B>) => ({ adds: u32(call.residual ? 1 : 0) });

/** Buffers of the epilogue in vec4 form: bias, slope, residual as present, and the output. */
export function epilogueBuffers<B>(call: Conv2dCall<B>): BufferBinding<B>[] {
  const buffers: BufferBinding<B>[] = [];
  if (call.bias !== undefined) buffers.push(vector('bias', call.bias));
  if (call.slope !== undefined) buffers.push(vector('slope', call.slope));
  if (call.residual) buffers.push(read('residual', call.residual));
  buffers.push(write('y', call.y));
  return buffers;
}

/**
 * @param asks whether the uniform `adds` says if the residual is added (see `optionalResidual`).
 * @returns `fn finish(sum, vectors, i)`: y[i] = activation(sum + bias) + residual[i], i counting vec4. `fn vectors_of(quad)` loads
 * what belongs to a quad of channels, once however many outputs are finished.
 */
export function epilogue<B>(call: Conv2dCall<B>, asks = false): string {
  const value = (name: 'bias' | 'slope') => (call[name] === undefined ? 'vec4<f32>(0.0)' : `${name}[quad]`);
  const lines = [
    'struct Vectors { bias: vec4<f32>, slope: vec4<f32> }',
    `fn vectors_of(quad: u32) -> Vectors { return Vectors(${value('bias')}, ${value('slope')}); }`,
    'fn finish(sum: vec4<f32>, vectors: Vectors, i: u32) {',
    '  var v = sum;',
  ];
  if (call.bias !== undefined) lines.push('  v += vectors.bias;');
  if (call.activation === 'relu') lines.push('  v = max(v, vec4<f32>(0.0));');
  if (call.activation === 'prelu')
    lines.push('  v = max(v, vec4<f32>(0.0)) + vectors.slope * min(v, vec4<f32>(0.0));');
  if (call.softmax) lines.push('  v = softmax(v);');
  if (call.residual) lines.push(`  ${asks ? 'if (params.adds != 0u) ' : ''}{ v += load_residual(i); }`);
  lines.push('  store_y(i, v);', '}');
  return lines.join('\n');
}
