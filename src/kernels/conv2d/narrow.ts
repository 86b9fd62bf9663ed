/**
 * 1×1 convolutions and dense layers with few outputs (the heads of a detector) as a GEMM whose lanes are pixels, for
 * software adapters: of the lanes that are channels in subgroup.ts most would idle. A lane owns BLOCKS pixels; each turn
 * the lanes of a subgroup load a row of weights each, that is as many depth steps as there are lanes, and
 * `subgroupShuffle` hands them round. A softmax over the outputs of a pixel is done in passing.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms, isPointwise } from './geometry.js';
import { handed, lines, range, tilesInTurn } from './subgroup.js';
import type { Conv2dCall, Conv2dShape } from './types.js';

/** Outputs above which the lanes of subgroup.ts have enough to do. */
const MOST_CHANNELS = 12;
const BLOCKS = 2;

export const isNarrow = (s: Conv2dShape): boolean =>
  isPointwise(s) && s.groups === 1 && s.outChannels <= MOST_CHANNELS;

/** Softmax needs all channels of a pixel in one lane. */
export const takesSoftmax = (channels: number): boolean => channels <= 4;

const SOFTMAX = `fn softmax(v: vec4<f32>) -> vec4<f32> {
  let real = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels);
  let seen = select(vec4<f32>(-3.4028234e38), v, real);
  let e = select(vec4<f32>(0.0), exp(v - max(max(seen.x, seen.y), max(seen.z, seen.w))), real);
  return e / dot(e, vec4<f32>(1.0));
}`;

/** @param lanes of a subgroup, a multiple of four. */
export function conv2dNarrow<B>(call: Conv2dCall<B>, lanes: number): KernelCall<B>[] {
  const s = call.shape;
  const pixels = s.batch * s.outHeight * s.outWidth;
  const run = tilesInTurn(ceilDiv(pixels, lanes * BLOCKS), quads(s.outChannels)) * lanes * BLOCKS;
  const runs = ceilDiv(pixels, run);
  /** Depth steps of a turn in quads. */
  const depth = lanes / 4;

  const quad = (d: number) => `
${lines(BLOCKS, (b) => {
  const x = `load_x(m${b} * params.in_q + min(c + ${d}u, params.in_q - 1u))`;
  return `      let x${b} = ${d === 0 ? x : `select(vec4<f32>(0.0), ${x}, c + ${d}u < params.in_q)`};`;
})}
${lines(
  4,
  (k) =>
    `      { let p = ${handed('w', 4 * d + k)}; ${range(BLOCKS)
      .map((b) => `s${b} = fma(vec4<f32>(x${b}.${'xyzw'[k]}), p, s${b});`)
      .join(' ')} }`,
)}`;
  const body = `
${call.softmax ? SOFTMAX : ''}
${epilogue(call)}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let q = group.z;
  let vectors = vectors_of(q);
  let begin = (group.x + group.y * 65535u) * params.run;
  for (var first = begin; first < min(begin + params.run, params.pixels); first += ${lanes * BLOCKS}u) {
${lines(BLOCKS, (b) => `    let m${b} = min(first + ${b * lanes}u + lane, params.pixels - 1u); var s${b} = vec4<f32>(0.0);`)}
    for (var c = 0u; c < params.in_q; c += ${depth}u) {
      // Past the last depth step pixels are zero.
      let w = weight[min(4u * c + lane, 4u * params.in_q - 1u) * params.out_q + q];
${range(depth)
  .map((d) => `      {${quad(d)}\n      }`)
  .join('\n')}
    }
${lines(BLOCKS, (b) => `    if (first + ${b * lanes}u + lane < params.pixels) { finish(s${b}, vectors, m${b} * params.out_q + q); }`)}
  }
}`;
  return [
    {
      label: `conv2d.forward.narrow${call.softmax ? ' softmax' : ''}`,
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: { ...geometryUniforms(s), run: u32(run), channels: u32(s.outChannels) },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body,
      workgroups: [Math.min(runs, 65535), ceilDiv(runs, 65535), quads(s.outChannels)],
      flops: convFlops(s),
      bytes: convBytes(call, quads(s.inChannels) * 4 * quads(s.outChannels) * bytesPerQuad('f32')),
    },
  ];
}
