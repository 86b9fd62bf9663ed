/**
 * A copy in halves of a weight that trains in f32, in the packings of packing.ts: `f16` the same order, `f16pairs` two
 * successive rows of [K][Op] in a u32. Once a step, before the convolution that reads it.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { Packing } from '../packing.js';
import { eachItem, grid } from '../tensor.js';

const SIZE = 64;

export interface Cast<B> {
  master: B;
  copy: B;
  /** Elements of the master. */
  length: number;
  /** Op. */
  outputs: number;
}

export function castWeight<B>(c: Cast<B>, packing: Packing): KernelCall<B>[] {
  const count = c.length / 4;
  const pairs = packing === 'f16pairs';
  return [
    {
      label: `optimizer.cast ${packing}`,
      uniforms: { count: u32(pairs ? count / 2 : count), row: u32(c.outputs / 4) },
      buffers: [
        { name: 'master', ref: c.master, element: 'vec4<f32>', write: false },
        { name: 'copy', ref: c.copy, element: pairs ? 'vec4<u32>' : 'vec2<u32>', write: true },
      ],
      body: `
fn half(v: vec4<f32>) -> vec4<f32> { return clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)); }
${eachItem(SIZE)}
  ${
    pairs
      ? `let at = i / params.row * 2u * params.row + i % params.row;
  let a = half(master[at]);
  let b = half(master[at + params.row]);
  copy[i] = vec4<u32>(pack2x16float(vec2(a.x, b.x)), pack2x16float(vec2(a.y, b.y)), pack2x16float(vec2(a.z, b.z)), pack2x16float(vec2(a.w, b.w)));`
      : `let v = half(master[i]);
  copy[i] = vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));`
  }
}`,
      workgroups: grid(pairs ? count / 2 : count, SIZE),
      flops: 0,
      bytes: c.length * 6,
    },
  ];
}
