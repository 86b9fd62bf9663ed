import { GpuError } from './errors.js';
import type { Gpu } from './gpu.js';
import type { Program } from './program.js';

export interface KernelTime {
  label: string;
  ms: number;
  flops: number;
  bytes: number;
}

/** Queries a set may hold; longer programs are timed in parts. */
const MAX_QUERIES = 4096;

/**
 * Time of every kernel call of a program by timestamp queries, each in a pass of its own.
 * @throws GpuError when the adapter has no `timestamp-query`.
 */
export async function profileProgram(gpu: Gpu, program: Program): Promise<KernelTime[]> {
  if (!gpu.device.features.has('timestamp-query')) {
    throw new GpuError('This adapter has no timestamp queries, so kernels cannot be timed one by one.');
  }
  const count = 2 * program.calls.length;
  if (count > MAX_QUERIES)
    throw new GpuError(
      `A program of ${program.calls.length} calls is too long to profile (at most ${MAX_QUERIES / 2}).`,
    );
  const stamps = await stampsOf(gpu, count, (encoder, querySet) => program.recordTimed(encoder, querySet));
  return program.calls.map((call, i) => ({
    label: call.label,
    ms: Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6,
    flops: call.flops,
    bytes: call.bytes,
  }));
}

/**
 * Milliseconds of a program that runs so many times over: between time stamps, or where the adapter has none until it is
 * known to be done.
 */
export async function timeRepeated(gpu: Gpu, program: Program, times: number): Promise<number> {
  if (!gpu.device.features.has('timestamp-query')) {
    const begin = performance.now();
    await gpu.runAndRead((encoder) => program.recordRepeated(encoder, times), []);
    return performance.now() - begin;
  }
  const [begin, end] = await stampsOf(gpu, 2, (encoder, querySet) =>
    program.recordRepeated(encoder, times, {
      querySet,
      beginningOfPassWriteIndex: 0,
      endOfPassWriteIndex: 1,
    }),
  );
  return Number(end - begin) / 1e6;
}

/** Nanoseconds that recorded work leaves in a query set of so many. */
async function stampsOf(
  gpu: Gpu,
  count: number,
  record: (encoder: GPUCommandEncoder, querySet: GPUQuerySet) => void,
): Promise<BigUint64Array> {
  const querySet = gpu.device.createQuerySet({ type: 'timestamp', count });
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const resolved = gpu.createBuffer(count * 8, usage, 'timestamps');
  try {
    const [bytes] = await gpu.runAndRead(
      (encoder) => {
        record(encoder, querySet);
        encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
      },
      [{ buffer: resolved, offset: 0, size: count * 8 }],
    );
    return new BigUint64Array(bytes);
  } finally {
    querySet.destroy();
    gpu.destroyBuffer(resolved);
  }
}
