import type { FloatType } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { ceilDiv, quads } from '../tensor.js';
import type { Conv2dPlan, Conv2dShape } from './types.js';

export interface PlanOptions {
  /** f16 stores weights as halves (sums stay f32). Default f32. */
  precision?: FloatType;
}

/** Picks variant, weight packing and tile for a shape on a device. */
export function planConv2d(s: Conv2dShape, traits: DeviceTraits, options: PlanOptions = {}): Conv2dPlan {
  if (s.groups > 1) {
    if (s.groups === s.inChannels && s.groups === s.outChannels) {
      return { variant: 'depthwise', packing: 'f32', tile: { run: Math.min(4, s.outWidth) } };
    }
    return { variant: 'grouped', packing: 'f32', tile: {} };
  }
  if (traits.kind === 'cpu' && traits.subgroupSize >= 4 && traits.subgroupSize <= 16) {
    const packing = options.precision === 'f16' ? 'f16pairs' : 'f32';
    return {
      variant: 'subgroup',
      packing,
      tile: { lanes: traits.subgroupSize, ...subgroupTile(s, traits.subgroupSize, packing === 'f16pairs') },
    };
  }
  return { variant: 'direct', packing: 'f32', tile: {} };
}

/** Cycles of lavapipe, measured: a 32-bit component of a vector load, a broadcast quad, a vector fma with its spill. */
const LOAD = 20;
const BROADCAST = 6;
const FMA = 0.5;

/** The tile with the least estimated time, waste at the edges included. */
function subgroupTile(s: Conv2dShape, lanes: number, pairs: boolean): { width: number; blocks: number } {
  const pixels = s.batch * s.outHeight * s.outWidth;
  let best = { width: 4, blocks: 1 };
  let least = Number.POSITIVE_INFINITY;
  for (const width of [2, 4]) {
    for (const blocks of [1, 2, 3]) {
      const tiles = ceilDiv(quads(s.outChannels) * 4, lanes * width) * ceilDiv(pixels, lanes * blocks);
      const weightLoads = 4 * width * LOAD * (pairs ? 0.5 : 1);
      const cost = weightLoads + blocks * (4 * LOAD + lanes * (BROADCAST + 4 * width * FMA));
      if (tiles * cost < least) {
        least = tiles * cost;
        best = { width, blocks };
      }
    }
  }
  return best;
}
