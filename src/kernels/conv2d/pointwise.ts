/**
 * 1×1 convolutions of a training step on software adapters, forward and input gradient: the plain product of subgroup.ts,
 *
 *   y[m, n] = Σ_k x[m, k] · w[k, n]        w: [K][N], or turned round [N][K] (input gradient: the same weights, not copied)
 *
 * by workgroups that go through several tiles, of one tile of pixels all channels first: its x is in the cache from then on
 * and whole rows of y are written at about the same time, and a workgroup costs as much to begin as a quarter of a tile. The
 * weights of a 1×1 layer stay in the outer cache.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { beginChunk, endChunk, intoChunk, type PartialStatistics } from '../batchnorm/partial.js';
import { bytesPerQuad, ceilDiv, type Operand, quads, read, vector, write } from '../tensor.js';
import { isPointwise } from './geometry.js';
import type { Temporary } from './grad_types.js';
import { hasFixedSubgroups } from './plan.js';
import { lines, multiplyAdd, range, sumsArray } from './subgroup.js';
import type { Conv2dShape } from './types.js';

/** Pixels a lane: a step that runs for hours takes the tile that is fastest once compiled. */
const BLOCKS = 4;

/** Whether a product of `outputs` channels over the pixels of a layer is one for this kernel: 1×1, f32 weights, not small. */
export const takesPointwise = (s: Conv2dShape, outputs: number, traits: DeviceTraits): boolean =>
  hasFixedSubgroups(traits) &&
  s.groups === 1 &&
  isPointwise(s) &&
  s.batch * s.outHeight * s.outWidth >= 64 * traits.subgroupSize &&
  outputs > 2 * traits.subgroupSize;

export interface PointwiseCall<B> {
  label: string;
  /** [pixels, K]. */
  x: Operand<B>;
  /** f32 [Kp][Np], or with `turned` [Np][Kp]. */
  weight: B;
  turned: boolean;
  /** [Np] f32. */
  bias?: B;
  /** What is added to y, in its shape. */
  extra?: Operand<B>;
  /** [pixels, N]. */
  y: Operand<B>;
  /** Batch norm's statistics of y, tile by tile, to be left in passing. */
  statistics?: PartialStatistics<B>;
}

/** What `statistics` is to be. */
export function pointwiseStatistics<B>(
  pixels: number,
  channels: number,
  traits: DeviceTraits,
  temporary: Temporary<B>,
): PartialStatistics<B> {
  const tile = traits.subgroupSize * BLOCKS;
  const strips = ceilDiv(pixels, tile);
  const partial = temporary([strips * 2, channels], 'f32');
  return { partial, chunks: { strips, most: tile, total: pixels, times: 1 } };
}

/** Tiles a workgroup takes in turn at most, and workgroups that keep a few cores busy. */
const MOST_IN_TURN = 16;
const LEAST_WORKGROUPS = 32;

export function pointwise<B>(c: PointwiseCall<B>, traits: DeviceTraits): KernelCall<B>[] {
  const lanes = traits.subgroupSize;
  const [pixels, depth] = c.x.shape;
  const columns = quads(c.y.shape[1]);
  const tile = lanes * BLOCKS;
  const channelTiles = ceilDiv(columns, lanes);
  const tiles = ceilDiv(pixels, tile) * channelTiles;
  const inTurn = Math.max(1, Math.min(MOST_IN_TURN, Math.floor(tiles / LEAST_WORKGROUPS)));
  const workgroups = ceilDiv(tiles, inTurn);
  const weights = c.turned
    ? `${lines(4, (i) => `      let r${i} = weight[(column * 4u + ${i}u) * params.depth + k];`)}
${lines(4, (j) => `      let w${j} = vec4<f32>(${range(4).map((i) => `r${i}[${j}]`)});`)}`
    : lines(4, (j) => `      let w${j} = weight[(k * 4u + ${j}u) * params.columns + column];`);
  const known = c.statistics?.partial;
  const bias = c.bias === undefined ? '' : ' + bias_here';
  const added = `${bias}${c.extra ? ' + load_extra(to)' : ''}`;
  const body = `
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let begin = (group.x + group.y * 65535u) * params.in_turn;
  for (var t = begin; t < min(begin + params.in_turn, params.tiles); t++) {
    let row = t / params.channel_tiles;
    let first = row * ${tile}u;
    let more = first + ${lanes}u < params.pixels;
    let wanted = (t - row * params.channel_tiles) * ${lanes}u + lane;
    let column = min(wanted, params.columns - 1u);
${lines(BLOCKS, (b) => `    let m${b} = min(first + ${b * lanes}u + lane, params.pixels - 1u) * params.depth;`)}
${lines(tile, (i) => `    var s${i} = vec4<f32>(0.0);`)}
    for (var k = 0u; k < params.depth; k++) {
${weights}
${multiplyAdd(lanes, 4, BLOCKS, (b) => `      let x${b} = load_x(m${b} + k);`)}
    }
    // A lane without channels of its own goes on: it hands pixels to the others.
    if (wanted < params.columns) {
      ${c.bias === undefined ? '' : 'let bias_here = bias[column];'}
${sumsArray(tile)}
      var to = first * params.columns + column;
      ${known ? beginChunk(`s0${bias}`) : ''}
      for (var m = first; m < min(first + ${tile}u, params.pixels); m++) {
        let v = sums[m - first]${added};
        store_y(to, v);
        to += params.columns;
        ${known ? intoChunk('v') : ''}
      }
      ${known ? endChunk('row * 2u * params.columns + column', 'params.columns', `f32(min(${tile}u, params.pixels - first))`) : ''}
    }
  }
}`;
  return [
    {
      label: `${c.label} 1×1 4×${BLOCKS}${c.extra ? ' add' : ''}${known ? ' statistics' : ''}`,
      // Bounds come from uniforms, the same for all lanes of the one subgroup of a workgroup.
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: {
        pixels: u32(pixels),
        depth: u32(quads(depth)),
        columns: u32(columns),
        channel_tiles: u32(channelTiles),
        tiles: u32(tiles),
        in_turn: u32(inTurn),
      },
      buffers: [
        read('x', c.x),
        vector('weight', c.weight),
        ...(c.bias === undefined ? [] : [vector('bias', c.bias)]),
        ...(c.extra ? [read('extra', c.extra)] : []),
        write('y', c.y),
        ...(known ? [{ ...vector('partial', known.ref), write: true }] : []),
      ],
      body,
      workgroups: [Math.min(workgroups, 65535), ceilDiv(workgroups, 65535), 1],
      flops: 2 * pixels * depth * c.y.shape[1],
      bytes:
        pixels * quads(depth) * bytesPerQuad(c.x.dtype) +
        pixels * columns * (bytesPerQuad(c.y.dtype) + (c.extra ? bytesPerQuad(c.extra.dtype) : 0)) +
        quads(depth) * columns * 64,
    },
  ];
}
