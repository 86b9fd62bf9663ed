import { totalmem } from 'node:os';
import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import type { DataSource } from '../../train/data/source.js';
import type { Recipe } from '../../train/recipe.js';
import { Trainer } from '../../train/trainer.js';

/** Batch norm takes its statistics from the batch: one picture has none. */
const LEAST_BATCH = 2;

/**
 * Says what a step takes.
 * @param limit in bytes; by default 80 % of the memory on a software adapter, and what buffers may hold elsewhere.
 * @throws WfrError when it cannot fit, with the largest batch that does, or that none does.
 */
export function checkMemory(gpu: Gpu, recipe: Recipe, source: DataSource, limit = usualLimit(gpu)): void {
  const { maxBufferSize } = gpu.device.limits;
  const plan = (batch: number) => Trainer.plan(gpu, { ...recipe, batch }, source);
  const fits = ({ total, arena }: ReturnType<typeof plan>) => total <= limit && arena <= maxBufferSize;
  const wanted = plan(recipe.batch);
  const { total, arena, parameters, flops } = wanted;
  console.error(
    `a step: ${megabytes(total)} MB (maps ${megabytes(arena)}, weights with gradients and moments ${megabytes(parameters)}), ${(flops / 1e9).toFixed(1)} GFLOP`,
  );
  if (fits(wanted)) return;
  const most = megabytes(Math.min(limit, maxBufferSize));
  const least = plan(LEAST_BATCH);
  if (!fits(least))
    throw new WfrError(
      `Not even a batch of ${LEAST_BATCH}, the least that batch norm can learn from, fits into ${most} MB: it needs ${megabytes(least.total)} MB. Choose a smaller --net or --size, or save memory with --precision f16 and --recompute.`,
    );
  let [low, high] = [LEAST_BATCH, recipe.batch];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(plan(middle))) low = middle;
    else high = middle;
  }
  throw new WfrError(
    `A batch of ${recipe.batch} needs ${megabytes(total)} MB, more than ${most} MB. The largest that fits is ${low}; --accumulate makes up for a smaller one.`,
  );
}

const usualLimit = (gpu: Gpu): number =>
  gpu.traits.kind === 'cpu' ? 0.8 * totalmem() : Number.POSITIVE_INFINITY;

/** Whole megabytes; of less than ten, one place more. */
const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
