import { describe, expect, it } from 'vitest';
import { MemorySource } from '../../src/train/data/memory_source.js';
import type { Recipe } from '../../src/train/recipe.js';
import { Trainer } from '../../src/train/trainer.js';
import { sharedGpu } from '../check_op.js';
import { people } from './people.js';
import { tinyRecipe } from './tiny.js';

// The nets at their full width and depth, with ArcFace as it is used (scale 64, margin 0.5). The pictures are small, for two
// processor cores; every layer is there.
describe('64 pictures of 16 people are learnt by heart', () => {
  it.each([
    ['MobileFaceNet', 'mobilefacenet', { embedding: 128 }, 32, 200],
    ['iResNet18', 'iresnet', { depth: 18 }, 16, 140],
    ['iResNet50', 'iresnet', { depth: 50 }, 16, 200],
  ] as const)(
    '%s',
    async (_, net, config, size, steps) => {
      const recipe: Recipe = tinyRecipe({
        net,
        description: { config, input: { height: size, width: size } },
        size,
        epochs: steps / 4,
        schedule: { kind: 'one-cycle', rate: 0.0008 },
        objective: {
          identity: { margin: { m1: 1, m2: 0.5, m3: 0, scale: 64, exact: false, gamma: 0 }, weight: 1 },
        },
      });
      const source = new MemorySource(people(16, 4, size), {
        side: size,
        size,
        batch: recipe.batch,
        seed: 1,
        augmentation: {},
      });
      const trainer = await Trainer.create(await sharedGpu(), recipe, source);
      const losses: number[] = [];
      const accuracies: number[] = [];
      try {
        await trainer.run({
          onStep: ({ loss, accuracy }) => {
            losses.push(loss);
            accuracies.push(accuracy!);
          },
        });
      } finally {
        trainer.destroy();
      }
      const mean = (list: number[]) => list.reduce((a, b) => a + b) / list.length;
      expect(losses[0]).toBeGreaterThan(20);
      expect(mean(losses.slice(-8)), `${losses.map((l) => l.toFixed(2))}`).toBeLessThan(0.1);
      expect(mean(accuracies.slice(-8))).toBe(1);
    },
    900_000,
  );
});
