import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { Program } from '../../src/gpu/program.js';
import { copyProbe } from '../../src/kernels/probe/copy.js';
import { fmaProbe, probeWorkgroupSize } from '../../src/kernels/probe/fma.js';
import { measureCopyRate, measureFmaRate } from '../../src/kernels/probe/measure.js';
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

  it.each([1, 7, 64, 5000, 70_001])('copies all of %i quads and nothing else', async (quads) => {
    const x = Float32Array.from({ length: 4 * quads }, (_, i) => i + 1);
    // One quad more, to see that it stays.
    const size = x.byteLength + 16;
    const ranges = [gpu.createStorage(x.byteLength, 'x', x), gpu.createStorage(size, 'out')].map(
      (buffer) => ({ buffer, offset: 0, size: buffer.size }),
    );
    const program = await Program.create(gpu, [copyProbe(gpu.traits, quads, ranges[0], ranges[1])]);
    const [bytes] = await gpu.runAndRead((encoder) => program.record(encoder), [ranges[1]]);
    const got = new Float32Array(bytes);
    expect(got.subarray(0, 4 * quads)).toEqual(x);
    expect([...got.subarray(4 * quads, 4 * quads + 4)]).toEqual([0, 0, 0, 0]);
    program.destroy();
    for (const { buffer } of ranges) gpu.destroyBuffer(buffer);
  });

  it('measures the rate of a copy and gives back the memory it took', async () => {
    await measureCopyRate(gpu, 0);
    const before = { ...gpu.stats };
    expect(await measureCopyRate(gpu, 0)).toBeGreaterThan(0);
    expect(gpu.stats).toEqual(before);
  });

  it('measures a rate and gives back the memory it took', async () => {
    await measureFmaRate(gpu, 0);
    const before = { ...gpu.stats };
    const rate = await measureFmaRate(gpu, 0);
    expect(rate.gflops).toBeGreaterThan(0);
    expect(gpu.stats).toEqual(before);
  });
});
