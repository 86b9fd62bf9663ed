import type { FloatType } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { ceilDiv, quads } from '../tensor.js';
import { fillsTile, plainTile, type Tile, tuningOf } from './gemm.js';
import { isPointwise } from './geometry.js';
import { matrixTile } from './matrix.js';
import { isNarrow } from './narrow.js';
import { isPooled } from './pooled.js';
import { isRuns } from './runs.js';
import { splitTile } from './tiled.js';
import type { Conv2dPlan, Conv2dShape, ConvPool } from './types.js';
import { isWinograd } from './winograd.js';

export interface PlanOptions {
  /**
   * f16 stores weights as halves, or where the device has matrix units multiplies halves (sums stay f32). Default f32.
   */
  precision?: FloatType;
  /** Weights never change, so that they may be transformed when they are packed (inference). Default false. */
  fixedWeights?: boolean;
  /** Max pooling that follows: done in passing where the plan is `pooled`. */
  pool?: ConvPool;
}

/** Input channels from which the transforms of Winograd pay. */
const WIDE = 32;

/**
 * Pixels of a lane in runs.ts. One length for all maps, because each is a pipeline that compiles for a second; longer ones
 * are as fast, and rows of R-Net's second layer have nine.
 */
const RUN = 9;

/** Bytes of Winograd's intermediates at a time: what a processor's outer cache holds beside the weights. */
const WINOGRAD_CHUNK = 2 ** 23;

export const isDepthwise = (s: Conv2dShape): boolean =>
  s.groups > 1 && s.groups === s.inChannels && s.groups === s.outChannels;
/** What the kernels that walk down strips of a depthwise layer take. */
export const isStrip = (s: Conv2dShape): boolean =>
  s.kernelHeight === 3 && s.kernelWidth === 3 && s.dilation === 1 && s.stride <= 2 && s.padding <= 2;
/** A workgroup of one subgroup is known to be that: software adapters. */
export const hasFixedSubgroups = (t: DeviceTraits): boolean =>
  t.kind === 'cpu' && t.subgroupSize >= 4 && t.subgroupSize <= 16;
/** Invocations of a workgroup where nothing is shared in it. */
export const lanesOf = (t: DeviceTraits): number => (t.kind === 'cpu' ? Math.max(t.subgroupSize, 8) : 64);

/** Length of the sum of an output. */
const depthOf = (s: Conv2dShape): number => s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 4;

/** Picks variant, weight packing and tile for a shape on a device. */
export function planConv2d(s: Conv2dShape, traits: DeviceTraits, options: PlanOptions = {}): Conv2dPlan {
  if (s.groups > 1) {
    if (isDepthwise(s)) {
      return { variant: 'depthwise', packing: 'f32', tile: depthwiseTile(s, traits) };
    }
    return { variant: 'grouped', packing: 'f32', tile: {} };
  }
  if (hasFixedSubgroups(traits)) {
    if (options.pool && isPooled(s, options.pool))
      return { variant: 'pooled', packing: 'f32', tile: pooledTile(s, options.pool, traits) };
    if (options.fixedWeights && isNarrow(s))
      return { variant: 'narrow', packing: 'f32', tile: { lanes: traits.subgroupSize } };
    if (options.fixedWeights && isRuns(s) && s.inChannels < WIDE)
      return { variant: 'runs', packing: 'f32', tile: { lanes: traits.subgroupSize, run: RUN } };
    const half = options.precision === 'f16';
    if (options.fixedWeights && winogradPays(s)) {
      const tile = { lanes: traits.subgroupSize, width: 4, blocks: 4, chunk: WINOGRAD_CHUNK };
      return {
        variant: 'winograd',
        packing: half ? 'winogradf16' : 'winograd',
        tile,
        optionalResidual: true,
      };
    }
    const packing = half ? 'f16pairs' : 'f32';
    return {
      variant: 'subgroup',
      packing,
      tile: { lanes: traits.subgroupSize, ...subgroupTile(s, traits.subgroupSize) },
      // Where nets add something; elsewhere to ask costs R-Net's layers a tenth.
      optionalResidual: options.fixedWeights && (isPointwise(s) || (s.stride > 1 && s.inChannels !== 3)),
    };
  }
  return cardPlan(s, traits, options.precision === 'f16');
}

/** Length of the sum from which it is worth splitting for few outputs: a dense layer's, at a small batch. */
const LONG = 1024;

/** A card's plan for what is not grouped. */
function cardPlan(s: Conv2dShape, traits: DeviceTraits, halves: boolean): Conv2dPlan {
  const rows = s.batch * s.outHeight * s.outWidth;
  const columns = quads(s.outChannels) * 4;
  const depth = depthOf(s);
  const matrix = halves && matrixTile(rows, columns, depth, traits);
  const { workgroups } = tuningOf(traits);
  const most = Math.floor(traits.maxBindingBytes / (4 * rows * columns));
  const inParts = (tile: Tile) => ({ ...splitTile(rows, columns, depth, tile, workgroups, most) });
  if (matrix) return { variant: 'matrix', packing: 'f16', tile: inParts(matrix) };
  const isWide = fillsTile(rows, columns) || (depth >= LONG && fillsTile(Number.POSITIVE_INFINITY, columns));
  if (traits.kind !== 'gpu' || !isWide) return { variant: 'direct', packing: 'f32', tile: {} };
  return { variant: 'tiled', packing: 'f32', tile: inParts(plainTile(rows, columns, traits)) };
}

/** Strips as long as leave each core a few subgroups of them: windows of three compute a row more for each strip. */
function pooledTile(s: Conv2dShape, pool: ConvPool, traits: DeviceTraits) {
  const [height, width] = [s.outHeight, s.outWidth].map((n) => ceilDiv(n - pool.kernel, 2) + 1);
  const strips = ceilDiv(8 * traits.subgroupSize, s.batch * ceilDiv(width, 2));
  return {
    lanes: traits.subgroupSize,
    size: traits.subgroupSize,
    rows: ceilDiv(height, Math.min(strips, height)),
  };
}

/** A strip for the 3×3 filters of the nets, else a run of outputs along a row. */
function depthwiseTile(s: Conv2dShape, traits: DeviceTraits): Readonly<Record<string, number>> {
  if (s.kernelHeight !== 3 || s.kernelWidth !== 3 || s.dilation !== 1 || s.stride > 2)
    return { run: Math.min(4, s.outWidth) };
  // A processor needs a few hundred invocations, a card tens of thousands.
  const cpu = traits.kind === 'cpu';
  return { rows: 2, columns: cpu ? s.outWidth : 4, size: lanesOf(traits), loop: cpu ? 1 : 0 };
}

/** Cycles of lavapipe, measured: a loaded number of eight lanes, a quad broadcast, a vector multiply-add. */
const LOAD = 16;
const BROADCAST = 6;
const MULTIPLY_ADD = 1;

/** Weights of a layer with few pixels from which half the products are worth a pipeline of their own. */
const OWN_TILE = 2 ** 20;

/**
 * The width with the least estimated time, waste at the edges included. Few candidates, whatever the number of pixels:
 * every tile is a pipeline that the driver compiles for a quarter of a second to two fifths.
 */
function subgroupTile(s: Conv2dShape, lanes: number): { width: number; blocks: number } {
  const pixels = s.batch * s.outHeight * s.outWidth;
  const weights = s.kernelHeight * s.kernelWidth * s.inChannels * s.outChannels;
  const blocks = pixels <= lanes && weights >= OWN_TILE ? 1 : isPointwise(s) ? 4 : 2;
  let best = { width: 4, blocks };
  let least = Number.POSITIVE_INFINITY;
  for (const width of [4, 2]) {
    const tiles = ceilDiv(quads(s.outChannels) * 4, lanes * width);
    const cost = 4 * width * LOAD + blocks * (4 * LOAD + lanes * (BROADCAST + 4 * width * MULTIPLY_ADD));
    if (tiles * cost < least) {
      least = tiles * cost;
      best = { width, blocks };
    }
  }
  return best;
}

/**
 * Winograd saves 5/9 of the products: worth its transforms with enough channels and few half-empty tiles. That keeps
 * out dense layers over 3×3 maps too, whose weights are packed in another order.
 */
function winogradPays(s: Conv2dShape): boolean {
  const computed = 4 * ceilDiv(s.outHeight, 2) * ceilDiv(s.outWidth, 2);
  return (
    isWinograd(s) && s.inChannels >= WIDE && s.outChannels >= 32 && computed <= 1.5 * s.outHeight * s.outWidth
  );
}
