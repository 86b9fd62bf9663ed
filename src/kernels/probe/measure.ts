import type { BufferRange, Gpu } from '../../gpu/gpu.js';
import { Program } from '../../gpu/program.js';
import { copyProbe } from './copy.js';
import { fmaProbe, probeWorkgroupSize } from './fma.js';

export interface FmaRate {
  /** Best rate of a dispatch, 10⁹ floating-point operations a second (an fma is two). */
  gflops: number;
  /** Milliseconds of the first dispatch, which includes what the driver compiles. */
  firstMs: number;
  /** Milliseconds of an empty submit and wait. */
  roundTripMs: number;
  dispatches: number;
}

/**
 * Measures the arithmetic rate of a device.
 * @param seconds how long to measure, after compilation.
 */
export async function measureFmaRate(gpu: Gpu, seconds = 2): Promise<FmaRate> {
  const size = probeWorkgroupSize(gpu.traits);
  // A software driver has a handful of cores; a card wants hundreds of thousands of invocations at once.
  const workgroups = gpu.traits.kind === 'cpu' ? 256 : 8192;
  const bytes = workgroups * size * 4;
  const out = gpu.createStorage(bytes, 'probe');
  const range: BufferRange = { buffer: out, offset: 0, size: bytes };
  let rounds = 8;
  const callOf = () => fmaProbe(gpu.traits, { rounds, workgroups, x: 0.999, y: 0.001 }, range);
  const program = await Program.create(gpu, [callOf()]);
  const timed = async (): Promise<number> => {
    const call = callOf();
    program.setUniforms(0, call.uniforms);
    const start = performance.now();
    await gpu.runAndRead((encoder) => program.record(encoder), []);
    return performance.now() - start;
  };
  try {
    const firstMs = await timed();
    let roundTripMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 5; i++) {
      const start = performance.now();
      await gpu.runAndRead(() => {}, []);
      roundTripMs = Math.min(roundTripMs, performance.now() - start);
    }
    // Long enough that the submit does not count, short enough that no driver's watchdog barks.
    let ms = await timed();
    while (ms < 100 && rounds < 1 << 24) {
      rounds *= ms < 20 ? 4 : 2;
      ms = await timed();
    }
    let best = ms;
    let dispatches = 1;
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      best = Math.min(best, await timed());
      dispatches++;
    }
    return { gflops: callOf().flops / best / 1e6, firstMs, roundTripMs, dispatches };
  } finally {
    program.destroy();
    gpu.destroyBuffer(out);
  }
}

/** Bytes that are copied at a time: more than any cache holds. */
const COPIED = { cpu: 2 ** 26, gpu: 2 ** 27 };

/**
 * Measures the rate of a copy on the device, 10⁹ bytes a second, read and written counted.
 * @param seconds how long to measure, after compilation.
 */
export async function measureCopyRate(gpu: Gpu, seconds = 1): Promise<number> {
  const bytes = Math.min(COPIED[gpu.traits.kind], gpu.traits.maxBindingBytes);
  const ranges = ['x', 'out'].map((name) => ({
    buffer: gpu.createStorage(bytes, `probe/${name}`),
    offset: 0,
    size: bytes,
  }));
  const program = await Program.create(gpu, [
    copyProbe<BufferRange>(gpu.traits, bytes / 16, ranges[0], ranges[1]),
  ]);
  /** Seconds of so many copies in one submit. */
  const timed = async (copies: number): Promise<number> => {
    const start = performance.now();
    await gpu.runAndRead((encoder) => {
      for (let i = 0; i < copies; i++) program.record(encoder);
    }, []);
    return (performance.now() - start) / 1000;
  };
  try {
    await timed(1);
    // So many that the submit does not count.
    let copies = 1;
    while ((await timed(copies)) < 0.05 && copies < 1024) copies *= 2;
    let best = Number.POSITIVE_INFINITY;
    const end = performance.now() + seconds * 1000;
    do best = Math.min(best, (await timed(copies)) / copies);
    while (performance.now() < end);
    return (2 * bytes) / best / 1e9;
  } finally {
    program.destroy();
    for (const { buffer } of ranges) gpu.destroyBuffer(buffer);
  }
}
