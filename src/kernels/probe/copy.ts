// Speed probe: a copy, every quad once in order of memory, so that its rate is what the device's memory (and, on a software
// adapter, the driver's loads and stores) can give.
//
//   out[i] = x[i]                                            x, out: f32 (4 · quads)
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { ceilDiv, vector } from '../tensor.js';
import { probeWorkgroupSize } from './fma.js';

/** Quads an invocation copies: a software driver's workgroup costs as much to begin as dozens of quads. */
const turnsOf = (traits: DeviceTraits) => (traits.kind === 'cpu' ? 256 : 4);

/** @param quads at most 65,535 workgroups' worth: 4 · 65,535 · probeWorkgroupSize on a card. */
export function copyProbe<B>(traits: DeviceTraits, quads: number, x: B, out: B): KernelCall<B> {
  const size = probeWorkgroupSize(traits);
  const turns = turnsOf(traits);
  return {
    label: 'probe.copy',
    body: `
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  for (var turn = 0u; turn < params.turns; turn++) {
    let i = (group.x * params.turns + turn) * ${size}u + lane;
    if (i < params.quads) { out[i] = x[i]; }
  }
}`,
    uniforms: { quads: u32(quads), turns: u32(turns) },
    buffers: [vector('x', x), vector('out', out, true)],
    workgroups: [ceilDiv(quads, size * turns), 1, 1],
    flops: 0,
    bytes: 32 * quads,
  };
}
