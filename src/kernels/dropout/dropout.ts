/**
 * Dropout (Srivastava et al. 2014, inverted): y = x / (1 − rate) where kept, 0 elsewhere. Whether element i is kept
 * follows from a hash of (i, salt, seed of the step) alone, so the backward pass computes the same mask again instead of
 * storing it, and a run repeats by its seed. The hash is the output function of PCG (O'Neill 2014) as
 * Jarzynski & Olano 2020 use it on GPUs.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
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

export interface Dropout<B> {
  x: Operand<B>;
  rate: number;
  /** Tells one dropout of a graph from another. */
  salt: number;
  /** Words of the step (`array<u32>`) and which of them is the seed. */
  step: B;
  seedWord: number;
  y: Operand<B>;
}

export function dropout<B>(c: Dropout<B>): KernelCall<B>[] {
  const count = quadsOf(c.x.shape);
  return [
    {
      label: 'dropout',
      uniforms: {
        count: u32(count),
        channel_quads: u32(quads(channelsOf(c.x.shape))),
        salt: u32(c.salt),
        threshold: u32(Math.min(2 ** 32 - 1, Math.round(c.rate * 2 ** 32))),
        scale: f32(1 / (1 - c.rate)),
      },
      buffers: [read('x', c.x), { name: 'step', ref: c.step, element: 'u32', write: false }, write('y', c.y)],
      body: `
fn hash(v: u32) -> u32 {
  let state = v * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}
${eachItem(SIZE)}
  let key = hash(hash(step[${c.seedWord}]) ^ params.salt);
  var keep = vec4<bool>();
  for (var k = 0u; k < 4u; k++) { keep[k] = hash(hash(i * 4u + k) ^ key) >= params.threshold; }
  store_y(i, select(vec4<f32>(0.0), load_x(i) * params.scale, keep));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 4 * 8,
      bytes: count * (bytesPerQuad(c.x.dtype) + bytesPerQuad(c.y.dtype)),
    },
  ];
}

const hash = (v: number): number => {
  const state = (Math.imul(v, 747796405) + 2891336453) >>> 0;
  const word = Math.imul((state >>> ((state >>> 28) + 4)) ^ state, 277803737) >>> 0;
  return ((word >>> 22) ^ word) >>> 0;
};

/** Whether the element at padded index `i` is kept: the kernel's rule in plain numbers. */
export function dropoutKeeps(i: number, salt: number, seed: number, rate: number): boolean {
  const key = hash((hash(seed >>> 0) ^ salt) >>> 0);
  return hash((hash(i >>> 0) ^ key) >>> 0) >= Math.min(2 ** 32 - 1, Math.round(rate * 2 ** 32));
}
