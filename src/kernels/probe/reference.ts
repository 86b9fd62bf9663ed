import { CHAINS, type FmaProbe, UNROLL } from './fma.js';

/** The same in f64: what the kernel has to give. */
export function fmaProbeReference(probe: FmaProbe, invocations: number): Float64Array {
  const out = new Float64Array(invocations);
  for (let i = 0; i < invocations; i++) {
    for (let k = 0; k < CHAINS; k++) {
      let a = (i % 8) + k;
      for (let n = 0; n < probe.rounds * UNROLL; n++) a = a * probe.x + probe.y;
      out[i] += a;
    }
  }
  return out;
}
