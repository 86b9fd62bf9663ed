import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

// Where there is no graphics card the adapter is the processor, and every worker's kernels use all its cores:
// two workers let one prepare while the other computes, more would only get into each other's way.
const workers = Math.max(2, Math.min(4, Math.floor(availableParallelism() / 2)));

// Public weights beside the checkout, where there are any; tests that need them say so and skip without.
const shared = join(import.meta.dirname, '..', 'shared', 'data', 'weights');
const weights = process.env.WFR_WEIGHTS ?? (existsSync(shared) ? shared : undefined);

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Processes, not threads: Dawn's binding does not support worker threads, and a crash stays in one file.
    pool: 'forks',
    maxWorkers: workers,
    env: weights ? { WFR_WEIGHTS: weights } : {},
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    reporters: ['./test/skips.reporter.ts', 'default'],
  },
});
