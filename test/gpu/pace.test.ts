import { describe, expect, it } from 'vitest';
import { openGpu } from '../../src/gpu/gpu.js';
import { type KernelCall, u32 } from '../../src/gpu/kernel_call.js';
import { Pace } from '../../src/gpu/pace.js';
import { Program } from '../../src/gpu/program.js';
import { Buffers } from '../check_op.js';

describe('a pace', () => {
  it('is unknown until the work was done twice, then nine tenths of the shortest of the last three times', () => {
    const pace = new Pace();
    expect(pace.least).toBe(0);
    pace.took(1000);
    expect(pace.least).toBe(0);
    pace.took(20);
    expect(pace.least).toBe(18);
    for (const ms of [30, 40, 50]) pace.took(ms);
    expect(pace.least).toBe(27);
  });

  it('is forgotten when the work may have been over long before it was asked for', () => {
    const pace = new Pace();
    for (const ms of [100, 100, 90.1]) pace.took(ms);
    expect(pace.least).toBe(0);
  });

  it('of one wait holds back nothing else that the program has waiting', async () => {
    const gpu = await openGpu();
    const buffers = new Buffers(gpu);
    const y = buffers.bytes(new Float32Array(4));
    try {
      const slow = new Pace();
      for (let i = 0; i < 2; i++) slow.took(2000);
      // The second finds the first's wait under way.
      const reads = [gpu.runAndRead(() => {}, [y]), gpu.runAndRead(() => {}, [y], slow)];
      const own = new Promise((resolve) => setImmediate(resolve)).then(() => 'own');
      const late = new Promise((resolve) => setTimeout(resolve, 1000)).then(() => 'late');
      expect(await Promise.race([own, late])).toBe('own');
      await Promise.all(reads);
    } finally {
      buffers.destroy();
      gpu.close();
    }
  });

  it('of work on the GPU makes polls rarer, and the results are the same', async () => {
    const gpu = await openGpu();
    const buffers = new Buffers(gpu);
    const y = buffers.bytes(new Float32Array(4));
    /** Some ten milliseconds on a processor. */
    const call: KernelCall<typeof y> = {
      label: 'count',
      uniforms: { turns: u32(1 << 22) },
      buffers: [{ name: 'y', ref: y, element: 'u32', write: true }],
      body: `@compute @workgroup_size(1)
fn main() { var n = y[0]; for (var i = 0u; i < params.turns; i++) { n = n * 1664525u + 1013904223u; } y[0] = n; y[1]++; }`,
      workgroups: [1, 1, 1],
      flops: 1,
      bytes: 4,
    };
    const program = await Program.create(gpu, [call]);
    const spaced = globalThis.setImmediate;
    let polls = 0;
    globalThis.setImmediate = Object.assign((...args: Parameters<typeof setImmediate>) => {
      polls++;
      return spaced(...args);
    }, spaced) as typeof setImmediate;
    try {
      let runs = 0;
      const least = async (pace?: Pace) => {
        const counts: number[] = [];
        for (let i = 0; i < 6; i++) {
          polls = 0;
          const [bytes] = await gpu.runAndRead((e) => program.record(e), [y], pace);
          counts.push(polls);
          expect(new Uint32Array(bytes)[1]).toBe(++runs);
        }
        return Math.min(...counts);
      };
      const unpaced = await least();
      expect(await least(new Pace())).toBeLessThan(unpaced);
    } finally {
      globalThis.setImmediate = spaced;
      program.destroy();
      buffers.destroy();
      gpu.close();
    }
  });
});
