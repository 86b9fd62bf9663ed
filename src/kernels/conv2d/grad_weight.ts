/**
 * Gradient of a convolution with respect to its weight:
 *
 *   dw[ky,kx,c,o] = Σ_{n,oy,ox} x[n, oy·s + ky·d − p, ox·s + kx·d − p, c] · dy[n,oy,ox,o]
 *
 * A GEMM whose depth is every output pixel of the batch, far longer than its sides: the depth is split into
 * chunks, each adds its share into a partial gradient of its own, and a second pass (reduce/partials.ts) adds the
 * partials in order. No atomics, so that two runs give the same bits.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { sumPartials } from '../reduce/partials.js';
import { planGradWeight } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { gradWeightDepthwise, gradWeightDepthwiseStrip } from './grad_weight_depthwise.js';
import { gradWeightDirect } from './grad_weight_direct.js';
import { gradWeightGrouped } from './grad_weight_grouped.js';
import { gradWeightSubgroup } from './grad_weight_subgroup.js';
import { gradWeightTiled } from './grad_weight_tiled.js';

/** The dispatches of dw = dL/dweight by the variant planned for the shape and the device. */
export function conv2dGradWeight<B>(call: GradWeightCall<B>, traits: DeviceTraits): KernelCall<B>[] {
  const halves = call.x.dtype === 'f16' && call.dy.dtype === 'f16';
  const plan = planGradWeight(call.shape, traits, halves);
  const { splits, rows, columns } = plan;
  const partial = splits > 1 ? call.temporary([splits * rows, columns], 'f32').ref : call.dw;
  const first = (() => {
    switch (plan.variant) {
      case 'strip':
        return gradWeightDepthwiseStrip(call, partial, plan);
      case 'depthwise':
        return gradWeightDepthwise(call, partial, plan);
      case 'grouped':
        return gradWeightGrouped(call, partial, plan);
      case 'subgroup':
        return gradWeightSubgroup(call, partial, plan);
      case 'tiled':
      case 'matrix':
        return gradWeightTiled(call, partial, plan, plan.tile);
      default:
        return gradWeightDirect(call, partial, plan);
    }
  })();
  return splits > 1 ? [first, sumPartials(partial, splits, (rows * columns) / 4, call.dw)] : [first];
}
