/**
 * Gradient of a convolution with respect to its input:
 *
 *   dx[n,iy,ix,c] = Σ_{ky,kx,o} dy[n,oy,ox,o] · w[ky,kx,c,o]      over the taps with oy·s + ky·d − p = iy,
 *                                                                 ox·s + kx·d − p = ix
 *
 * At stride s an input pixel is reached only by the taps with iy + p − ky·d divisible by s, so the pixels fall
 * into s² classes by (iy mod s, ix mod s), each of them a small dense convolution over its own taps. Kernels take
 * one class a workgroup (or a slice of the grid) and step over its taps; no pixel tests for divisibility.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { add } from '../elementwise/forward.js';
import { product, quads } from '../tensor.js';
import { coversMap } from './geometry.js';
import {
  gradInputDepthwise,
  gradInputDepthwiseGlobal,
  gradInputDepthwiseStrip,
} from './grad_input_depthwise.js';
import { gradInputDirect } from './grad_input_direct.js';
import { gradInputGrouped } from './grad_input_grouped.js';
import { gradInputSubgroup } from './grad_input_subgroup.js';
import { gradInputTiled } from './grad_input_tiled.js';
import { type GradInputPlan, planGradInput } from './grad_plan.js';
import type { GradInputCall } from './grad_types.js';
import { pointwise } from './pointwise.js';
import type { Conv2dShape } from './types.js';

/** The dispatches of dx = dL/dx (+ extra) by the variant planned for the shape and the device. */
export function conv2dGradInput<B>(call: GradInputCall<B>, traits: DeviceTraits): KernelCall<B>[] {
  const dense = denseAsPointwise(call);
  const plan = planGradInput(dense.shape, traits, call.dy.dtype === 'f16');
  if (plan.variant === 'pointwise') return gradInputPointwise(dense, traits);
  if (!call.extra) return planned(dense, plan);
  if (!call.temporary) throw new Error('an input gradient that is added to another needs scratch memory');
  const dx = call.temporary(call.dx.shape, call.dx.dtype);
  return [...planned({ ...dense, dx: { ...dense.dx, ref: dx.ref } }, plan), ...add(dx, call.extra, call.dx)];
}

function planned<B>(call: GradInputCall<B>, plan: GradInputPlan): KernelCall<B>[] {
  switch (plan.variant) {
    case 'strip':
      return gradInputDepthwiseStrip(call, plan.tile);
    case 'global':
      return gradInputDepthwiseGlobal(call, plan.size);
    case 'depthwise':
      return gradInputDepthwise(call);
    case 'grouped':
      return gradInputGrouped(call);
    case 'subgroup':
      return gradInputSubgroup(call, plan.tile);
    case 'tiled':
    case 'matrix':
      return gradInputTiled(call, plan.tile);
    default:
      return gradInputDirect(call);
  }
}

function gradInputPointwise<B>({ shape: s, dy, weight, dx, extra }: GradInputCall<B>, traits: DeviceTraits) {
  const pixels = s.batch * s.inHeight * s.inWidth;
  const x = { ...dy, shape: [pixels, s.outChannels] };
  const y = { ...dx, shape: [pixels, s.inChannels] };
  return pointwise({ label: 'conv2d.grad_input', x, weight, turned: true, extra, y }, traits);
}

/**
 * Where the filter covers the map, every input pixel has one tap of its own: dx [N, H·W·Cp] = dy [N, O] · wᵀ, a
 * 1×1 convolution backwards whose channels are the whole map. Its weight [H·W·Cp][Op] lies in memory as it is.
 */
function denseAsPointwise<B>(call: GradInputCall<B>): GradInputCall<B> {
  const s = call.shape;
  if (s.groups > 1 || !coversMap(s)) return call;
  const features = product([s.inHeight, s.inWidth, quads(s.inChannels) * 4]);
  const shape: Conv2dShape = {
    ...s,
    inHeight: 1,
    inWidth: 1,
    inChannels: features,
    kernelHeight: 1,
    kernelWidth: 1,
    stride: 1,
    dilation: 1,
  };
  return { ...call, shape, dx: { ...call.dx, shape: [s.batch, 1, 1, features] } };
}
