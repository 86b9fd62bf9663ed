import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { Program } from '../../src/gpu/program.js';
import { fmaProbe, probeWorkgroupSize } from '../../src/kernels/probe/fma.js';
import { measureFmaRate } from '../../src/kernels/probe/measure.js';
import { fmaProbeReference } from '../../src/kernels/probe/reference.js';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openGpu();
});
afterAll(() => gpu?.close());

describe('the speed probe', () => {
  it.each([1, 3, 20])('computes what its reference computes, %i rounds', async (rounds) => {
    const probe = { rounds, workgroups: 3, x: 0.999, y: 0.25 };
    const invocations = probe.workgroups * probeWorkgroupSize(gpu.traits);
    const range = { buffer: gpu.createStorage(invocations * 4, 'out'), offset: 0, size: invocations * 4 };
    const program = await Program.create(gpu, [fmaProbe(gpu.traits, probe, range)]);
    const [bytes] = await gpu.runAndRead((encoder) => program.record(encoder), [range]);
    const got = new Float32Array(bytes);
    const wanted = fmaProbeReference(probe, invocations);
    // f32 rounds each of 16 · rounds steps; the sum is of some thousands.
    for (let i = 0; i < invocations; i++) expect(Math.abs(got[i] / wanted[i] - 1)).toBeLessThan(1e-5);
    program.destroy();
    gpu.destroyBuffer(range.buffer);
  });

  it('measures a rate and gives back the memory it took', async () => {
    await measureFmaRate(gpu, 0);
    const before = { ...gpu.stats };
    const rate = await measureFmaRate(gpu, 0);
    expect(rate.gflops).toBeGreaterThan(0);
    expect(gpu.stats).toEqual(before);
  });
});
