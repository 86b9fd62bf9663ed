/**
 * Convolution as implicit GEMM for hardware GPUs, by the GEMM of gemm.ts: m is an output pixel, k tap and input channel,
 * n an output channel. Where that makes too few tiles for a card's cores, each tile's sum is split among several
 * workgroups, and a second pass adds their parts, in order.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32, u32 } from '../../gpu/kernel_call.js';
import {
  ceilDiv,
  DIVIDE,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  tensorBytes,
  write,
} from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { placesIn, quadLoad, type Tile } from './gemm.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';
import type { Conv2dCall } from './types.js';

/** Invocations of a workgroup of the second pass. */
const SIZE = 64;

const NEXT_TAP = 'kx++; if (kx == params.kernel_w) { kx = 0u; ky++; }';
/** Takes channels past the last over into the next taps. */
const CARRY = `while (c >= params.in_q) { c -= params.in_q; ${NEXT_TAP} }`;

/** A tile, and the parts its sum is made in. */
export interface SplitTile extends Tile {
  readonly splits: number;
  /** Depth of a part, a multiple of the tile's. */
  readonly chunk: number;
}

/** Workgroups that keep a card's cores busy. */
const ENOUGH = 128;
/** Depth of a part at least, for the second pass to be worth it. */
const LEAST = 128;

/** The tile with as many parts for c of so many rows and columns and a sum so long as fill a card. */
export function splitTile(rows: number, columns: number, depth: number, tile: Tile): SplitTile {
  const tiles = ceilDiv(rows, tile.side) * ceilDiv(columns, tile.side);
  const splits = tiles >= ENOUGH ? 1 : Math.min(Math.floor((2 * ENOUGH) / tiles), Math.floor(depth / LEAST));
  const chunk = ceilDiv(ceilDiv(depth, Math.max(1, splits)), tile.depth) * tile.depth;
  return { ...tile, splits: ceilDiv(depth, chunk), chunk };
}

/** The calls for a tile; `weight` is packed `f32`, where matrix units multiply `f16`. */
export function conv2dTiled<B>(call: Conv2dCall<B>, tile: SplitTile): KernelCall<B>[] {
  const s = call.shape;
  const isSplit = tile.splits > 1;
  if (isSplit && !call.temporary) throw new Error('a convolution in parts needs scratch memory');
  const partial = isSplit ? call.temporary!([tile.splits, ...call.y.shape], 'f32') : undefined;
  const { side } = tile;
  const at = placesIn(tile);
  const pixels = s.batch * s.outHeight * s.outWidth;
  const tiles = ceilDiv(pixels, side);
  const columns = ceilDiv(quads(s.outChannels) * 4, side);
  const weight: Operand<B> = {
    ref: call.weight,
    shape: [s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 4, s.outChannels],
    dtype: tile.m === undefined ? 'f32' : 'f16',
  };
  const kernel = gemmKernel(tile, {
    functions: `${isSplit ? '' : epilogue(call)}
${DIVIDE}
${quadLoad('x', call.x.dtype, tile)}
${quadLoad('weight', weight.dtype, tile)}`,
    setup: `
  let first = (group.x + group.y * 65535u) * ${side}u;
  let part = group.z / params.columns;
  let first_quad = group.z % params.columns * ${side / 4}u;
  let begin = part * params.chunk;
  let end = min(begin + params.chunk, params.kernel_h * params.kernel_w * params.in_q);
  let depth = end - begin;
  // This invocation's pixels, and where in the depth (tap and channel quad) its next load is.
${lines(
  at.loads,
  (j) => `  let m${j} = min(first + ${at.aRow(j)}, params.pixels - 1u);
  let line${j} = divide(m${j}, params.out_w, params.per_width);
  let n${j} = divide(m${j}, params.out_w * params.out_h, params.per_map);
  let x${j} = (m${j} - line${j} * params.out_w) * params.stride - params.padding;
  let y${j} = (line${j} - n${j} * params.out_h) * params.stride - params.padding;`,
)}
  var ky = 0u;
  var kx = 0u;
  var c = begin + ${at.quad};
  ${CARRY}
  var k = (begin + ${at.down}) * 4u;
  let quad = first_quad + ${at.across};`,
    fetch: `${lines(
      at.loads,
      (j) => `      {
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = y${j} + ky * params.dilation;
        let ix = x${j} + kx * params.dilation;
        a${j} = Quad();
        if (ky < params.kernel_h && iy < params.in_h && ix < params.in_w) {
          a${j} = quad_x(((n${j} * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        b${j} = Quad();
        if (k + ${at.deeper(j)}u < end * 4u && quad < params.out_q) {
          b${j} = quad_weight((k + ${at.deeper(j)}u) * params.out_q + quad);
        }
      }`,
    )}
      c += ${tile.depth / 4}u;
      ${CARRY}
      k += ${tile.depth}u;`,
    a: 'rows',
    b: 'rows',
    store: `if (first + row < params.pixels && first_quad + column < params.out_q) {
      let i = (first + row) * params.out_q + first_quad + column;
      ${isSplit ? 'partial[part * params.pixels * params.out_q + i] = v;' : 'finish(v, vectors_of(first_quad + column), i);'}
    }`,
  });
  const product: KernelCall<B> = {
    label: `conv2d.forward.${kernel.name}`,
    directives: kernel.directives,
    uniforms: {
      ...geometryUniforms(s),
      per_width: f32(1 / s.outWidth),
      per_map: f32(1 / (s.outWidth * s.outHeight)),
      columns: u32(columns),
      chunk: u32(tile.chunk / 4),
    },
    buffers: [
      read('x', call.x),
      read('weight', weight),
      ...(partial ? [write('partial', partial)] : epilogueBuffers(call)),
    ],
    body: kernel.body,
    workgroups: [Math.min(tiles, 65535), ceilDiv(tiles, 65535), columns * tile.splits],
    flops: convFlops(s),
    bytes: convBytes(call, tensorBytes(weight.shape, weight.dtype)),
  };
  return partial ? [product, sumOfParts(call, partial, tile.splits)] : [product];
}

/** The second pass: y = the epilogue of Σ_s partial[s]. */
function sumOfParts<B>(call: Conv2dCall<B>, partial: Operand<B>, splits: number): KernelCall<B> {
  const count = quadsOf(call.y.shape);
  return {
    label: 'conv2d.forward.parts',
    uniforms: { count: u32(count), out_q: u32(quads(call.shape.outChannels)), splits: u32(splits) },
    buffers: [read('partial', partial), ...epilogueBuffers(call)],
    body: `${epilogue(call)}
${eachItem(SIZE)}
  var sum = vec4<f32>();
  for (var s = 0u; s < params.splits; s++) { sum += partial[s * params.count + i]; }
  finish(sum, vectors_of(i % params.out_q), i);
}`,
    workgroups: grid(count, SIZE),
    flops: 4 * count * splits,
    bytes: 16 * count * splits + tensorBytes(call.y.shape, call.y.dtype),
  };
}
