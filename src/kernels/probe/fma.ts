// Speed probe: chains of fused multiply-adds with nothing between them, so that its rate is what the device's
// arithmetic can give and every other kernel's rate can be read as a share of it.
//
//   each invocation i, chain k < CHAINS:  a ← i mod 8 + k, then rounds · UNROLL times  a ← a · x + y
//   out[i] = sum over k of a                                              out: f32 (invocations)
//
// Ten independent chains hide the latency of an fma; lavapipe, which makes a product and a sum of each, spills
// registers from twelve on with some processors (measured: 115 GFLOP/s with ten, 70 with twelve).
import { type BufferBinding, f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';

export const CHAINS = 10;
export const UNROLL = 16;

export interface FmaProbe {
  /** Times the unrolled body runs. */
  rounds: number;
  workgroups: number;
  /** Factor and summand; |x| < 1 keeps the chains finite. */
  x: number;
  y: number;
}

/** Invocations of a workgroup: one subgroup on a software driver, where a workgroup is one core's. */
export function probeWorkgroupSize(traits: DeviceTraits): number {
  return traits.kind === 'cpu' ? Math.max(traits.subgroupSize, 4) : 64;
}

/** The probe as a kernel call over `out`, f32 of workgroups · probeWorkgroupSize elements. */
export function fmaProbe<B>(traits: DeviceTraits, probe: FmaProbe, out: B): KernelCall<B> {
  const size = probeWorkgroupSize(traits);
  const chains = Array.from({ length: CHAINS }, (_, k) => k);
  const step = chains.map((k) => `a${k} = fma(a${k}, x, y);`).join(' ');
  const body = `
@compute @workgroup_size(${size})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let start = f32(id.x % 8u);
  let x = params.x;
  let y = params.y;
  ${chains.map((k) => `var a${k} = start + ${k}.0;`).join(' ')}
  for (var i = 0u; i < params.rounds; i++) {
    ${Array.from({ length: UNROLL }, () => step).join('\n    ')}
  }
  out[id.x] = ${chains.map((k) => `a${k}`).join(' + ')};
}`;
  const buffers: BufferBinding<B>[] = [{ name: 'out', ref: out, element: 'f32', write: true }];
  const invocations = probe.workgroups * size;
  return {
    label: 'probe.fma',
    body,
    uniforms: { rounds: u32(probe.rounds), x: f32(probe.x), y: f32(probe.y) },
    buffers,
    workgroups: [probe.workgroups, 1, 1],
    flops: 2 * CHAINS * UNROLL * probe.rounds * invocations,
    bytes: 4 * invocations,
  };
}
