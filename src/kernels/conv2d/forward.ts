import type { KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { conv2dDepthwise, conv2dDepthwiseStrip, type DepthwiseStrip } from './depthwise.js';
import { conv2dDirect } from './direct.js';
import { conv2dGrouped } from './grouped.js';
import { conv2dNarrow } from './narrow.js';
import { conv2dPooled, type PooledTile } from './pooled.js';
import { conv2dRuns, type RunsTile } from './runs.js';
import { conv2dSubgroup } from './subgroup.js';
import { conv2dTiled, type SplitTile } from './tiled.js';
import type { Conv2dCall, Conv2dPlan } from './types.js';
import { conv2dWinograd } from './winograd.js';

/** The dispatches of y = activation(conv(x, weight) + bias) + residual by the planned variant. */
export function conv2dForward<B>(
  call: Conv2dCall<B>,
  plan: Conv2dPlan,
  _traits: DeviceTraits,
): KernelCall<B>[] {
  switch (plan.variant) {
    case 'depthwise':
      return plan.tile.columns
        ? conv2dDepthwiseStrip(call, plan.tile as unknown as DepthwiseStrip)
        : conv2dDepthwise(call, plan.tile.run);
    case 'grouped':
      return conv2dGrouped(call);
    case 'narrow':
      return conv2dNarrow(call, plan.tile.lanes);
    case 'pooled':
      return conv2dPooled(call, plan.tile as unknown as PooledTile);
    case 'runs':
      return conv2dRuns(call, plan.tile as unknown as RunsTile);
    case 'subgroup':
      return conv2dSubgroup(call, plan);
    case 'winograd':
      return conv2dWinograd(call, plan);
    case 'tiled':
    case 'matrix':
      return conv2dTiled(call, plan.tile as unknown as SplitTile);
    default:
      return conv2dDirect(call);
  }
}
