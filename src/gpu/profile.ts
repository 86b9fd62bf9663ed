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
  const querySet = gpu.device.createQuerySet({ type: 'timestamp', count });
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const resolved = gpu.createBuffer(count * 8, usage, 'timestamps');
  try {
    const [bytes] = await gpu.runAndRead(
      (encoder) => {
        program.recordTimed(encoder, querySet);
        encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
      },
      [{ buffer: resolved, offset: 0, size: count * 8 }],
    );
    const stamps = new BigUint64Array(bytes);
    return program.calls.map((call, i) => ({
      label: call.label,
      ms: Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6,
      flops: call.flops,
      bytes: call.bytes,
    }));
  } finally {
    querySet.destroy();
    gpu.destroyBuffer(resolved);
  }
}
