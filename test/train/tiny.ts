import type { Gpu } from '../../src/gpu/gpu.js';
import { CheckpointStore } from '../../src/train/checkpoint.node.js';
import { MemorySource } from '../../src/train/data/memory_source.js';
import type { Recipe } from '../../src/train/recipe.js';
import { type StepReport, Trainer } from '../../src/train/trainer.js';
import { people } from './people.js';

export const SIZE = 32;

/** A MobileFaceNet so small that a step takes milliseconds. */
export const tinyRecipe = (changes: Partial<Recipe> = {}): Recipe => ({
  net: 'mobilefacenet',
  description: {
    config: {
      stem: 8,
      stemGroups: 8,
      blocks: [
        { expand: 16, outputs: 16, stride: 2 },
        { expand: 32, outputs: 16, stride: 1 },
        { expand: 32, outputs: 24, stride: 2 },
      ],
      head: 48,
      embedding: 16,
    },
    input: { height: SIZE, width: SIZE },
  },
  size: SIZE,
  batch: 16,
  epochs: 10,
  seed: 1,
  objective: {
    identity: { margin: { m1: 1, m2: 0.2, m3: 0, scale: 16, exact: false, gamma: 0 }, weight: 1 },
  },
  optimizer: { kind: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 },
  schedule: { kind: 'one-cycle', rate: 0.01 },
  clip: 5,
  ...changes,
});

export const tinySource = (
  recipe: Recipe,
  teacher?: { data: Float32Array; dimension: number },
): MemorySource =>
  new MemorySource(people(16, 4, SIZE), {
    side: SIZE,
    size: recipe.size,
    batch: recipe.batch,
    seed: recipe.seed,
    augmentation: { mirror: 0.5 },
    teacher,
  });

/**
 * Trains in `folder`, from its last checkpoint if there is one.
 * @returns the trainer and the step that it began at.
 */
export async function tinyRun(
  gpu: Gpu,
  folder: string,
  every: number,
  hooks: { onBegin?: (step: number) => void; onStep?: (report: StepReport) => void } = {},
): Promise<{ trainer: Trainer; begun: number }> {
  const recipe = tinyRecipe({ ema: 0.9 });
  const checkpoints = await CheckpointStore.open(folder);
  const trainer = await Trainer.create(gpu, recipe, tinySource(recipe), {
    checkpoints,
    checkpointEvery: every,
  });
  const last = await checkpoints.latest();
  if (last) trainer.restore(last);
  const begun = trainer.step;
  hooks.onBegin?.(begun);
  await trainer.run({ onStep: hooks.onStep });
  return { trainer, begun };
}
