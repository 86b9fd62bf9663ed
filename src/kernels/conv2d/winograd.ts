/**
 * 3×3 convolution at stride 1 by Winograd's F(2×2, 3×3) (Lavin & Gray 2016, "Fast algorithms for convolutional
 * neural networks"): four outputs for sixteen products a channel instead of thirty-six.
 *
 *   Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A      d: 4×4 inputs, Y: 2×2 outputs, summed over input channels inside [ ]
 *
 *   Bᵀ = 1  0 −1  0      G = 1   0   0       Aᵀ = 1 1  1  0
 *        0  1  1  0          ½   ½   ½            0 1 −1 −1
 *        0 −1  1  0          ½  −½   ½
 *        0  1  0 −1          0   0   1
 *
 * Three dispatches over the tiles T of some pictures: inputs V [16][T][Ip], sixteen GEMMs M [16][T][Op] with weights
 * U [16][Ip][Op] transformed when they are packed (packing.ts), outputs with the epilogue. V has x's storage type,
 * M is always f32, because four outputs are differences of nine of them. A sum of four halves could pass their
 * range, so V is stored as a quarter where U is stored as halves, four times too large.
 *
 * An affine map of the input (a batch norm that follows an addition and so folds into no convolution before it) is
 * applied where V is made, to pixels only: what lies in the padding stays zero.
 */
import type { BufferBinding, KernelCall } from '../../gpu/kernel_call.js';
import { f32, u32 } from '../../gpu/kernel_call.js';
import {
  bytesPerQuad,
  ceilDiv,
  DIVIDE,
  eachItem,
  grid,
  type Operand,
  quads,
  read,
  write,
} from '../tensor.js';
import { addsUniform, epilogue, epilogueBuffers, optionalResidual } from './epilogue.js';
import { convFlops, geometryUniforms } from './geometry.js';
import {
  halves,
  lines,
  multiplyAdd,
  push,
  range,
  sumsArray,
  tilesInTurn,
  vec,
  weightLoads,
} from './subgroup.js';
import type { Conv2dCall, Conv2dPlan, Conv2dShape } from './types.js';

const SIZE = 64;
/** Values of a transformed tile. */
export const POINTS = 16;
/** What the transform covers: 3×3, stride 1, no dilation, one group. */
export const isWinograd = (s: Conv2dShape): boolean =>
  s.kernelHeight === 3 && s.kernelWidth === 3 && s.stride === 1 && s.dilation === 1 && s.groups === 1;

export function conv2dWinograd<B>(call: Conv2dCall<B>, plan: Conv2dPlan): KernelCall<B>[] {
  const s = call.shape;
  if (!call.temporary) throw new Error('conv2d.forward.winograd needs scratch memory');
  const pairs = plan.packing === 'winogradf16';
  const total = tilesOf(s);
  const bytesPerTile =
    POINTS * (quads(s.inChannels) * bytesPerQuad(call.x.dtype) + quads(s.outChannels) * 16);
  // Parts of equal length, so that no part is a rest.
  const parts = Math.min(total, ceilDiv(total * bytesPerTile, plan.tile.chunk));
  const length = ceilDiv(total, parts);
  const calls: KernelCall<B>[] = [];
  for (let first = 0; first < total; first += length) {
    const chunk = { first, tiles: Math.min(length, total - first) };
    const v = call.temporary([POINTS, chunk.tiles, s.inChannels], call.x.dtype);
    const m = call.temporary([POINTS, chunk.tiles, s.outChannels], 'f32');
    calls.push(
      transformInput(call, pairs, chunk, v),
      multiply(call, plan, chunk, v, m),
      transformOutput(call, plan, chunk, m),
    );
  }
  return calls;
}

/** Tiles of all pictures. */
const tilesOf = (s: Conv2dShape) => s.batch * ceilDiv(s.outHeight, 2) * ceilDiv(s.outWidth, 2);

interface Chunk {
  /** First of all pictures' tiles and number of tiles. */
  first: number;
  tiles: number;
}

const chunkUniforms = (s: Conv2dShape, { first, tiles }: Chunk, channels: number) => ({
  ...geometryUniforms(s),
  first: u32(first),
  tiles: u32(tiles),
  tiles_h: u32(ceilDiv(s.outHeight, 2)),
  tiles_w: u32(ceilDiv(s.outWidth, 2)),
  per_q: f32(1 / quads(channels)),
  per_row: f32(1 / ceilDiv(s.outWidth, 2)),
  per_map: f32(1 / (ceilDiv(s.outHeight, 2) * ceilDiv(s.outWidth, 2))),
});

/** Opening lines of a kernel over (tile, channel quad): tile, q, and the tile's picture and place in it. */
const eachTile = (channels: 'in_q' | 'out_q') => `${DIVIDE}
${eachItem(SIZE)}
  let tile = divide(i, params.${channels}, params.per_q);
  let q = i - tile * params.${channels};
  let place = params.first + tile;
  let row = divide(place, params.tiles_w, params.per_row);
  let n = divide(place, params.tiles_h * params.tiles_w, params.per_map);
  let ty = row - n * params.tiles_h;
  let tx = place - row * params.tiles_w;`;

function transformInput<B>(call: Conv2dCall<B>, pairs: boolean, chunk: Chunk, v: Operand<B>): KernelCall<B> {
  const s = call.shape;
  const count = chunk.tiles * quads(s.inChannels);
  const four = range(4);
  const buffers: BufferBinding<B>[] = [read('x', call.x)];
  if (call.inputAffine) {
    buffers.push({ name: 'scale', ref: call.inputAffine.scale, element: 'vec4<f32>', write: false });
    buffers.push({ name: 'shift', ref: call.inputAffine.shift, element: 'vec4<f32>', write: false });
  }
  buffers.push(write('points', v));
  const affine = call.inputAffine ? ' * scale_here + shift_here' : '';
  /** The four combinations of one column or row of four. */
  const combine = (a: string[]) => [
    `${a[0]} - ${a[2]}`,
    `${a[1]} + ${a[2]}`,
    `${a[2]} - ${a[1]}`,
    `${a[1]} - ${a[3]}`,
  ];
  return {
    label: 'conv2d.forward.winograd input',
    uniforms: { ...chunkUniforms(s, chunk, s.inChannels), count: u32(count) },
    buffers,
    body: `${eachTile('in_q')}
  ${call.inputAffine ? 'let scale_here = scale[q]; let shift_here = shift[q];' : ''}
  // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
  let iy = 2u * ty - params.padding;
  let ix = 2u * tx - params.padding;
${four.map((c) => `  let column${c} = ix + ${c}u < params.in_w;`).join('\n')}
${four
  .map(
    (r) => `  let row${r} = iy + ${r}u < params.in_h;
  let line${r} = (n * params.in_h + iy + ${r}u) * params.in_w + ix;`,
  )
  .join('\n')}
${four
  .flatMap((r) =>
    four.map(
      (c) =>
        `  let d${r}${c} = select(vec4<f32>(0.0), load_x(select(0u, line${r} + ${c}u, row${r} && column${c}) * params.in_q + q)${affine}, row${r} && column${c});`,
    ),
  )
  .join('\n')}
${four
  .flatMap((c) => combine(four.map((r) => `d${r}${c}`)).map((e, r) => `  let e${r}${c} = ${e};`))
  .join('\n')}
  let step = params.tiles * params.in_q;
${four
  .flatMap((r) =>
    combine(four.map((c) => `e${r}${c}`)).map(
      (e, c) => `  store_points(i + ${4 * r + c}u * step, ${pairs ? `0.25 * (${e})` : e});`,
    ),
  )
  .join('\n')}
}`,
    workgroups: grid(count, SIZE),
    flops: 0,
    bytes: count * bytesPerQuad(call.x.dtype) * (POINTS + 4),
  };
}

/** M[t] = V[t]·U[t] for the sixteen points t: the GEMM of subgroup.ts with a third axis. */
function multiply<B>(
  call: Conv2dCall<B>,
  plan: Conv2dPlan,
  chunk: Chunk,
  v: Operand<B>,
  m: Operand<B>,
): KernelCall<B> {
  const s = call.shape;
  const { lanes, width, blocks } = plan.tile as { lanes: number; width: number; blocks: number };
  const pairs = plan.packing === 'winogradf16';
  const F = vec(width, 'f32');
  const channelTiles = ceilDiv(quads(s.outChannels) * 4, lanes * width);
  const run = tilesInTurn(ceilDiv(chunk.tiles, lanes * blocks), channelTiles * POINTS) * lanes * blocks;
  const runs = ceilDiv(chunk.tiles, run);
  const depthBytes = quads(s.inChannels) * 4 * quads(s.outChannels) * bytesPerQuad(pairs ? 'f16' : 'f32');
  const body = `
${pairs ? halves(width) : ''}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.out_q * 4u / ${width}u;
  let point = group.z / params.channel_tiles;
  let wanted = group.z % params.channel_tiles * ${lanes}u + lane;
  let channel = min(wanted, per_row - 1u);
  let begin = (group.x + group.y * 65535u) * params.run;
  for (var first = begin; first < min(begin + params.run, params.tiles); first += ${lanes * blocks}u) {
${lines(blocks * lanes, (i) => `    var s${i} = ${F}(0.0);`)}
${lines(blocks, (b) => `    var p${b} = (point * params.tiles + min(first + ${b * lanes}u + lane, params.tiles - 1u)) * params.in_q;`)}
    let more = first + ${lanes}u < params.tiles;
    var at = point * params.in_q * ${pairs ? 2 : 4}u * per_row + channel;
    for (var c = 0u; c < params.in_q; c++) {
${weightLoads(pairs)}
${multiplyAdd(lanes, width, blocks, (b) => `      let x${b} = load_points(p${b} + c);`)}
    }
    if (wanted < per_row) {
      var to = (point * params.tiles + first) * per_row + channel;
${sumsArray(lanes * blocks)}
      for (var k = first; k < min(first + ${lanes * blocks}u, params.tiles); k++) {
        products[to] = sums[k - first];
        to += per_row;
      }
    }
  }
}`;
  return {
    label: `conv2d.forward.winograd ${width}×${blocks}${pairs ? ' f16' : ''}`,
    directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
    uniforms: {
      tiles: u32(chunk.tiles),
      in_q: u32(quads(s.inChannels)),
      out_q: u32(quads(s.outChannels)),
      channel_tiles: u32(channelTiles),
      run: u32(run),
    },
    buffers: [
      read('points', v),
      { name: 'weight', ref: call.weight, element: pairs ? vec(width, 'u32') : F, write: false },
      { name: 'products', ref: m.ref, element: F, write: true },
    ],
    body,
    workgroups: [Math.min(runs, 65535), ceilDiv(runs, 65535), channelTiles * POINTS],
    // The convolution's own operations, so that rates compare with those of other variants.
    flops: (convFlops(s) * chunk.tiles) / tilesOf(s),
    bytes:
      POINTS *
      (depthBytes + chunk.tiles * (quads(s.inChannels) * bytesPerQuad(v.dtype) + quads(s.outChannels) * 16)),
  };
}

/**
 * Loads and stores are most of what a driver compiles, unrolled over its lanes, so there is a quarter of them and four
 * turns. The bound is a uniform, that the driver may not unroll it. (The input's
 * sixteen would take a quarter longer that way: they are written out.)
 */
const FOUR_TIMES = 'for (var j = 0u; j < params.kernel_w + 1u; j++) {';

function transformOutput<B>(
  call: Conv2dCall<B>,
  plan: Conv2dPlan,
  chunk: Chunk,
  m: Operand<B>,
): KernelCall<B> {
  const s = call.shape;
  const bound = { ...call, residual: optionalResidual(call, plan) };
  const count = chunk.tiles * quads(s.outChannels);
  const four = range(4);
  return {
    label: 'conv2d.forward.winograd output',
    uniforms: { ...chunkUniforms(s, chunk, s.outChannels), count: u32(count), ...addsUniform(call) },
    buffers: [read('products', m), ...epilogueBuffers(bound)],
    body: `${epilogue(bound, true)}
${eachTile('out_q')}
  let step = params.tiles * params.out_q;
  ${four.map((c) => `var top${c} = vec4<f32>(0.0); var low${c} = vec4<f32>(0.0);`).join(' ')}
  var at = i;
  ${FOUR_TIMES}
${lines(4, (r) => `    let m${r} = load_products(at + ${4 * r}u * step);`)}
    at += step;
    ${push('top', 4, 'm0 + m1 + m2')}
    ${push('low', 4, 'm1 - m2 - m3')}
  }
  let to = ((n * params.out_h + 2u * ty) * params.out_w + 2u * tx) * params.out_q + q;
  let vectors = vectors_of(q);
  var y0 = top0 + top1 + top2;
  var y1 = top1 - top2 - top3;
  var y2 = low0 + low1 + low2;
  var y3 = low1 - low2 - low3;
  ${FOUR_TIMES}
    let right = j & 1u;
    let below = j >> 1u;
    if (2u * tx + right < params.out_w && 2u * ty + below < params.out_h) {
      finish(y0, vectors, to + (below * params.out_w + right) * params.out_q);
    }
    y0 = y1; y1 = y2; y2 = y3;
  }
}`,
    workgroups: grid(count, SIZE),
    flops: 0,
    bytes: count * (POINTS * 16 + 4 * bytesPerQuad(call.y.dtype) * (call.residual ? 2 : 1)),
  };
}
