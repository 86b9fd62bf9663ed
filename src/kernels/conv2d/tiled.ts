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
import { foursOfB, placesIn, quadLoad, type Tile } from './gemm.js';
import { convBytes, convFlops, geometryUniforms, isPointwise } from './geometry.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';
import type { Conv2dCall } from './types.js';

/** Invocations of a workgroup of the second pass. */
const SIZE = 64;

/** Texts that load a's quads `c` of the tile's pixels. */
interface Pixels {
  setup: string;
  /** Once `c` is set. */
  first: string;
  fetch: string;
  counts: (j: number) => string;
}

/** A 1×1 convolution's pixels are the rows of a matrix. */
function rowsOfMatrix(tile: Tile, isDeep: boolean): Pixels {
  const { aRow, loads } = placesIn(tile);
  return {
    setup: lines(loads, (j) => `  let row${j} = min(first + ${aRow(j)}, params.pixels - 1u) * params.in_q;`),
    first: 'var a_counts = false;',
    fetch: `      a_counts = ${isDeep || 'c < end'};
      let a_quad = select(0u, c, a_counts);
${lines(loads, (j) => `      a${j} = quad_x(row${j} + a_quad);`)}
      c += ${tile.depth / 4}u;`,
    counts: () => 'a_counts',
  };
}

/**
 * Each pixel's corner of the map is kept as coordinates, to test the borders, and as the index of its quad 0; a tap as
 * what it adds to either. Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
 * @param inQuads channel quads of x.
 */
function pixelsOfMap(tile: Tile, inQuads: number): Pixels {
  const { aRow, loads } = placesIn(tile);
  const step = tile.depth / 4;
  const carry = (again: 'if' | 'while') => `${again} (c >= params.in_q) {
        c -= params.in_q;
        kx++;
        if (kx == params.kernel_w) { kx = 0u; ky++; }
        // Beyond the last tap every pixel is outside.
        tap_y = select(ky * params.dilation, 0x40000000u, ky >= params.kernel_h);
        tap_x = kx * params.dilation;
        tap = (tap_y * params.in_w + tap_x) * params.in_q;
      }`;
  return {
    setup: lines(
      loads,
      (j) => `  let m${j} = min(first + ${aRow(j)}, params.pixels - 1u);
  let line${j} = divide(m${j}, params.out_w, params.per_width);
  let n${j} = divide(m${j}, params.out_w * params.out_h, params.per_map);
  let x${j} = (m${j} - line${j} * params.out_w) * params.stride - params.padding;
  let y${j} = (line${j} - n${j} * params.out_h) * params.stride - params.padding;
  let corner${j} = ((n${j} * params.in_h + y${j}) * params.in_w + x${j}) * params.in_q;
  var a_counts${j} = false;`,
    ),
    first: `var ky = 0u;
  var kx = 0u;
  var tap_y = 0u;
  var tap_x = 0u;
  var tap = 0u;
  ${carry('while')}`,
    fetch: `${lines(
      loads,
      (j) => `      a_counts${j} = y${j} + tap_y < params.in_h && x${j} + tap_x < params.in_w;
      a${j} = quad_x(select(0u, corner${j} + tap + c, a_counts${j}));`,
    )}
      c += ${step}u;
      ${carry(inQuads >= step ? 'if' : 'while')}`,
    counts: (j) => `a_counts${j}`,
  };
}

/** A tile, and the parts its sum is made in. */
export interface SplitTile extends Tile {
  readonly splits: number;
  /** Depth of a part, a multiple of the tile's. */
  readonly chunk: number;
}

/** Depth of a part at least, for the second pass to be worth it. */
const LEAST = 128;

/**
 * The tile with as many parts for c of so many rows and columns and a sum so long as fill a card.
 * @param enough workgroups that do.
 * @param most parts whose sums fit a binding.
 */
export function splitTile(
  rows: number,
  columns: number,
  depth: number,
  tile: Tile,
  enough: number,
  most: number,
): SplitTile {
  const tiles = ceilDiv(rows, tile.side) * ceilDiv(columns, tile.side);
  const wanted = tiles >= enough ? 1 : Math.floor((2 * enough) / tiles);
  const splits = Math.min(wanted, most, Math.floor(depth / LEAST));
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
  const depth = s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 4;
  /** Steps that are never cut short, and tiles that never pass the last column, need no tests. */
  const isDeep = depth % tile.depth === 0;
  const isWhole = isDeep && (quads(s.outChannels) * 4) % side === 0;
  const pixels = isPointwise(s) ? rowsOfMatrix(tile, isDeep) : pixelsOfMap(tile, quads(s.inChannels));
  const tiles = ceilDiv(s.batch * s.outHeight * s.outWidth, side);
  const columns = ceilDiv(quads(s.outChannels) * 4, side);
  const weight: Operand<B> = {
    ref: call.weight,
    shape: [depth, s.outChannels],
    dtype: tile.m === undefined ? 'f32' : 'f16',
  };
  const deeper = (h: number) => at.deeper(4 * h);
  const b = foursOfB(
    at.loads,
    (h) => `${isWhole || `k + ${deeper(h) / 4}u < end && quad < params.out_q`}`,
    (h) => `(k * 4u + ${deeper(h)}u) * params.out_q + quad`,
    (index) => `quad_weight(${index})`,
  );
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
${pixels.setup}
  // Where in the depth the next load is of a (channel quad of a tap) and of b.
  var c = begin + ${at.quad};
  ${pixels.first}
  var k = begin + ${at.down};
  let quad = first_quad + ${at.across};
${b.setup}`,
    fetch: `${pixels.fetch}
${b.fetch}
      k += ${tile.depth / 4}u;`,
    counts: { a: pixels.counts, b: b.counts },
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
