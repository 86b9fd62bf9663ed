/**
 * Element-wise ops over tensors of one shape, and ops that apply a value per channel. One invocation a quad of channels;
 * parameters are padded vectors [Cp] in f32.
 *
 *   prelu      max(x, 0) + slope·min(x, 0)
 *   batchNorm  (x − mean)/√(variance + eps)·weight + bias   (running statistics: inference)
 *   affine     x·scale + shift
 *   flip       y[n, h, w, c] = x[n, h, W − 1 − w, c]
 */
import { f32, type KernelCall, type Uniform, u32 } from '../../gpu/kernel_call.js';
import {
  bytesPerQuad,
  channelsOf,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  write,
} from '../tensor.js';

const SIZE = 64;

interface Spec<B> {
  label: string;
  inputs: readonly [string, Operand<B>][];
  parameters?: readonly [string, B][];
  uniforms?: Record<string, Uniform>;
  y: Operand<B>;
  /** WGSL expression of the result; `i` counts quads, `q` is the quad's channel group. */
  value: string;
  flopsPerElement: number;
}

function map<B>({
  label,
  inputs,
  parameters = [],
  uniforms = {},
  y,
  value,
  flopsPerElement,
}: Spec<B>): KernelCall<B>[] {
  const count = quadsOf(y.shape);
  return [
    {
      label,
      uniforms: { count: u32(count), channel_quads: u32(quads(channelsOf(y.shape))), ...uniforms },
      buffers: [
        ...inputs.map(([name, operand]) => read(name, operand)),
        ...parameters.map(([name, ref]) => ({ name, ref, element: 'vec4<f32>', write: false })),
        write('y', y),
      ],
      body: `${eachItem(SIZE)}
  let q = i % params.channel_quads;
  store_y(i, ${value});
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * flopsPerElement,
      bytes: count * [...inputs.map(([, o]) => o), y].reduce((sum, o) => sum + bytesPerQuad(o.dtype), 0),
    },
  ];
}

export const relu = <B>(x: Operand<B>, y: Operand<B>) =>
  map({ label: 'relu', inputs: [['x', x]], y, value: 'max(load_x(i), vec4<f32>(0.0))', flopsPerElement: 1 });

export const prelu = <B>(x: Operand<B>, slope: B, y: Operand<B>) =>
  map({
    label: 'prelu',
    inputs: [['x', x]],
    parameters: [['slope', slope]],
    y,
    value: 'max(load_x(i), vec4<f32>(0.0)) + slope[q] * min(load_x(i), vec4<f32>(0.0))',
    flopsPerElement: 4,
  });

export const add = <B>(a: Operand<B>, b: Operand<B>, y: Operand<B>) =>
  map({
    label: 'add',
    inputs: [
      ['a', a],
      ['b', b],
    ],
    y,
    value: 'load_a(i) + load_b(i)',
    flopsPerElement: 1,
  });

export const mul = <B>(a: Operand<B>, b: Operand<B>, y: Operand<B>) =>
  map({
    label: 'mul',
    inputs: [
      ['a', a],
      ['b', b],
    ],
    y,
    value: 'load_a(i) * load_b(i)',
    flopsPerElement: 1,
  });

/** x·value. */
export const scale = <B>(x: Operand<B>, value: number, y: Operand<B>) =>
  map({
    label: 'scale',
    inputs: [['x', x]],
    uniforms: { value: f32(value) },
    y,
    value: 'load_x(i) * params.value',
    flopsPerElement: 1,
  });

export const affine = <B>(x: Operand<B>, scale: B, shift: B, y: Operand<B>) =>
  map({
    label: 'affine',
    inputs: [['x', x]],
    parameters: [
      ['scale', scale],
      ['shift', shift],
    ],
    y,
    value: 'load_x(i) * scale[q] + shift[q]',
    flopsPerElement: 2,
  });

export interface BatchNormParameters<B> {
  weight: B;
  bias: B;
  mean: B;
  variance: B;
}

export const batchNorm = <B>(x: Operand<B>, p: BatchNormParameters<B>, eps: number, y: Operand<B>) =>
  map({
    label: 'batchNorm.forward',
    inputs: [['x', x]],
    parameters: [
      ['weight', p.weight],
      ['bias', p.bias],
      ['mean', p.mean],
      ['variance', p.variance],
    ],
    uniforms: { eps: f32(eps) },
    y,
    value: '(load_x(i) - mean[q]) * inverseSqrt(variance[q] + params.eps) * weight[q] + bias[q]',
    flopsPerElement: 4,
  });

/** Copies, converting between f32 and f16 storage where the operands differ. */
export const copy = <B>(x: Operand<B>, y: Operand<B>) =>
  map({ label: 'copy', inputs: [['x', x]], y, value: 'load_x(i)', flopsPerElement: 0 });

/** Mirrors a map [N, H, W, C] left and right. */
export const flip = <B>(x: Operand<B>, y: Operand<B>) =>
  map({
    label: 'flip',
    inputs: [['x', x]],
    uniforms: { width: u32(x.shape[2]) },
    y,
    value:
      'load_x((i / params.channel_quads + params.width - 1u - 2u * (i / params.channel_quads % params.width)) * params.channel_quads + q)',
    flopsPerElement: 0,
  });
