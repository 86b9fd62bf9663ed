import type { DeviceTraits } from '../../gpu/traits.js';
import { ceilDiv, quads } from '../tensor.js';
import { fillsTile, plainTile, type Tile, tuningOf } from './gemm.js';
import { coversMap } from './geometry.js';
import { largestClass } from './grad_geometry.js';
import type { StripTile } from './grad_input_depthwise.js';
import { matrixTile } from './matrix.js';
import { hasFixedSubgroups, isDepthwise, isStrip, lanesOf } from './plan.js';
import { takesPointwise } from './pointwise.js';
import type { SubgroupTile } from './subgroup.js';
import type { Conv2dShape } from './types.js';

export type GradInputPlan =
  | { variant: 'subgroup'; tile: SubgroupTile }
  | { variant: 'strip'; tile: StripTile }
  | { variant: 'global'; size: number }
  | { variant: 'matrix' | 'tiled'; tile: Tile }
  | { variant: 'direct' | 'depthwise' | 'grouped' | 'pointwise' };

export interface SplitPlan {
  /** Partial gradients; 1 writes the gradient itself. */
  splits: number;
  /** Units of depth (output pixels, or columns of a strip) a split takes. */
  chunk: number;
  /** The packed gradient as a matrix. */
  rows: number;
  columns: number;
}

export type GradWeightPlan = SplitPlan &
  (
    | { variant: 'subgroup'; tile: SubgroupTile }
    | { variant: 'strip'; tile: { columns: number; rows: number; size: number } }
    | { variant: 'matrix' | 'tiled'; tile: Tile }
    | { variant: 'direct' | 'depthwise' | 'grouped' }
  );

/**
 * Picks the variant and tile of the input gradient. A dense layer comes as the 1×1 convolution it is.
 * @param halves whether dy is stored in f16: then the weights may be rounded to it where the device multiplies halves.
 */
export function planGradInput(s: Conv2dShape, traits: DeviceTraits, halves = false): GradInputPlan {
  if (isDepthwise(s)) {
    if (coversMap(s)) return { variant: 'global', size: lanesOf(traits) };
    if (!isStrip(s)) return { variant: 'depthwise' };
    const cpu = traits.kind === 'cpu';
    const rows = cpu ? s.inHeight + s.padding : 4;
    const columns = s.stride === 2 ? 1 : cpu ? 4 : 2;
    return { variant: 'strip', tile: { columns, rows, size: lanesOf(traits) } };
  }
  if (s.groups > 1) return { variant: 'grouped' };
  if (!hasFixedSubgroups(traits)) {
    const columns = quads(s.inChannels) * 4;
    // Of the taps a class has its share.
    const depth = ceilDiv(s.kernelHeight * s.kernelWidth, s.stride ** 2) * quads(s.outChannels) * 4;
    const pixels = largestClass(s);
    const tile = halves && matrixTile(pixels, columns, depth, traits);
    if (tile) return { variant: 'matrix', tile };
    return traits.kind === 'gpu' && fillsTile(pixels, s.inChannels)
      ? { variant: 'tiled', tile: plainTile(pixels, columns, traits) }
      : { variant: 'direct' };
  }
  if (takesPointwise(s, s.inChannels, traits)) return { variant: 'pointwise' };
  const lanes = traits.subgroupSize;
  const width = quads(s.inChannels) * 4 <= lanes * 2 ? 2 : 4;
  const pixels = largestClass(s);
  // Four blocks bring an eighth over two and take twice as long to compile: not for small work.
  return {
    variant: 'subgroup',
    tile: { lanes, width, blocks: pixels <= lanes ? 1 : pixels < 64 * lanes ? 2 : 4 },
  };
}

/**
 * Picks the variant, tile and split of the weight gradient.
 * @param halves whether x and dy are stored in f16: then they may be multiplied so where the device does.
 */
export function planGradWeight(s: Conv2dShape, traits: DeviceTraits, halves = false): GradWeightPlan {
  const taps = s.kernelHeight * s.kernelWidth;
  const columns = quads(s.outChannels) * 4;
  const pixels = s.batch * s.outHeight * s.outWidth;
  const cpu = traits.kind === 'cpu';
  const split = (rows: number, units: number, wanted: number, least: number): SplitPlan => {
    // Partials must fit one binding; a chunk must be worth its second pass.
    const most = Math.max(1, Math.floor(traits.maxBindingBytes / (rows * columns * 4)));
    const splits = Math.max(1, Math.min(most, wanted, Math.floor(units / least)));
    const chunk = ceilDiv(units, splits);
    return { splits: ceilDiv(units, chunk), chunk, rows, columns };
  };
  if (isDepthwise(s)) {
    const invocations = cpu ? 32 * lanesOf(traits) : 65536;
    if (!isStrip(s)) {
      const wanted = ceilDiv(invocations, taps * quads(s.outChannels));
      return { variant: 'depthwise', ...split(taps, pixels, wanted, 16) };
    }
    const wide = {
      columns: cpu && s.stride === 1 ? 4 : 2,
      rows: cpu ? s.outHeight : 16,
      size: lanesOf(traits),
    };
    const units = s.batch * ceilDiv(s.outHeight, wide.rows) * ceilDiv(s.outWidth, wide.columns);
    const wanted = ceilDiv(invocations, quads(s.outChannels));
    return { variant: 'strip', tile: wide, ...split(taps, units, wanted, 1) };
  }
  const invocations = cpu ? 1024 : 65536;
  if (s.groups > 1) {
    const rows = taps * (s.inChannels / s.groups);
    return { variant: 'grouped', ...split(rows, pixels, ceilDiv(invocations, (rows * columns) / 4), 64) };
  }
  const rows = taps * quads(s.inChannels) * 4;
  if (!hasFixedSubgroups(traits)) {
    // Chunks of this many pixels make workgroups enough for any tile.
    const least = 256;
    const wanted = 8 * tuningOf(traits).workgroups;
    const tiledSplit = (tile: Tile) => {
      const tiles = ceilDiv(rows, tile.side) * ceilDiv(columns, tile.side);
      return { tile, ...split(rows, pixels, ceilDiv(wanted, tiles), least) };
    };
    const matrix = halves && matrixTile(rows, columns, pixels, traits, pixels / least);
    if (matrix) return { variant: 'matrix', ...tiledSplit(matrix) };
    if (traits.kind === 'gpu' && fillsTile(rows, columns))
      return { variant: 'tiled', ...tiledSplit(plainTile(rows, columns, traits, pixels / least)) };
    return { variant: 'direct', ...split(rows, pixels, ceilDiv(invocations, (rows * columns) / 16), 64) };
  }
  const lanes = traits.subgroupSize;
  const width = columns <= lanes * 2 ? 2 : 4;
  const blocks = rows / 4 <= lanes ? 1 : 2;
  const tiles = ceilDiv(rows / 4, lanes * blocks) * ceilDiv(columns, lanes * width);
  // Enough workgroups for a few cores; a chunk of 512 pixels makes the second pass a few hundredths of the first.
  return {
    variant: 'subgroup',
    tile: { lanes, width, blocks },
    ...split(rows, pixels, ceilDiv(32, tiles), 512),
  };
}
