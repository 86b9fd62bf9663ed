/** dL/dL, with which the backward pass begins: the loss scale of the step (1 without mixed precision). */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { WORD } from '../optimizer/step_words.js';
import { type Operand, write } from '../tensor.js';

export const lossGradient = <B>(step: B, dLoss: Operand<B>): KernelCall<B>[] => [
  {
    label: 'lossGradient',
    uniforms: {},
    buffers: [{ name: 'step', ref: step, element: 'u32', write: false }, write('d_loss', dLoss)],
    body: `
@compute @workgroup_size(1)
fn main() { store_d_loss(0u, vec4<f32>(bitcast<f32>(step[${WORD.lossScale}]), 0.0, 0.0, 0.0)); }`,
    workgroups: [1, 1, 1],
    flops: 0,
    bytes: 16,
  },
];
