import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CheckpointStore } from '../../src/train/checkpoint.node.js';
import { MemorySource, type MemorySourceOptions } from '../../src/train/data/memory_source.js';
import { Random } from '../../src/train/random.js';
import type { Recipe } from '../../src/train/recipe.js';
import { Trainer } from '../../src/train/trainer.js';
import { sharedGpu } from '../check_op.js';
import { people } from './people.js';
import { SIZE, tinyRecipe, tinyRun, tinySource } from './tiny.js';

/** Steps between the checkpoints of tiny_child.ts. */
const EVERY = 3;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'wfr-resume-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('resuming', () => {
  it('after a stop begins there and gives the weights of an uninterrupted run', async () => {
    const gpu = await sharedGpu();
    const whole = await tinyRun(gpu, join(folder, 'whole'), 100);
    expect(whole.begun).toBe(0);
    const { recipe } = whole.trainer;
    const checkpoints = await CheckpointStore.open(join(folder, 'parts'));
    const first = await Trainer.create(gpu, recipe, tinySource(recipe), { checkpoints });
    const stop = new AbortController();
    await first.run({
      signal: stop.signal,
      onStep: ({ step }) => {
        if (step === 7) stop.abort();
      },
    });
    // The device had the next batch already.
    expect(await checkpoints.steps()).toEqual([0, 8]);
    first.destroy();
    const seen: number[] = [];
    const second = await tinyRun(gpu, join(folder, 'parts'), 100, { onStep: ({ step }) => seen.push(step) });
    expect(second.begun).toBe(8);
    expect(seen).toEqual(Array.from({ length: whole.trainer.step - 8 }, (_, i) => 9 + i));
    expect(await second.trainer.parameters.snapshot()).toEqual(await whole.trainer.parameters.snapshot());
    second.trainer.destroy();
    whole.trainer.destroy();
  });

  it('after an error in onStep goes on from where the weights are', async () => {
    const gpu = await sharedGpu();
    const recipe = tinyRecipe();
    const whole = await Trainer.create(gpu, recipe, tinySource(recipe));
    await whole.run();
    const broken = await Trainer.create(gpu, recipe, tinySource(recipe));
    const onStep = ({ step }: { step: number }) => {
      if (step === 2) throw new Error('no room');
    };
    await expect(broken.run({ onStep })).rejects.toThrow('no room');
    // The device had the third batch already.
    expect(broken.step).toBe(3);
    await broken.run();
    expect(await broken.parameters.snapshot()).toEqual(await whole.parameters.snapshot());
    whole.destroy();
    broken.destroy();
  });

  it('with one batch in flight, what onStep reads is of its step', async () => {
    const gpu = await sharedGpu();
    const recipe = tinyRecipe();
    const first = await Trainer.create(gpu, recipe, tinySource(recipe));
    const read: unknown[] = [];
    await first.run({
      inFlight: 1,
      until: 4,
      onStep: async ({ step }) => {
        if (step === 2) read.push(await first.parameters.snapshot());
      },
    });
    const second = await Trainer.create(gpu, recipe, tinySource(recipe));
    await second.run({ until: 2 });
    expect(read).toEqual([await second.parameters.snapshot()]);
    first.destroy();
    second.destroy();
  });

  it('after kill -9 at random moments loses no more than the steps since a checkpoint, and gives the same weights', async () => {
    const gpu = await sharedGpu();
    const whole = await tinyRun(gpu, join(folder, 'whole'), 100);
    const parts = join(folder, 'parts');
    let reached = 0;
    // More with WFR_KILLS=20.
    for (let kill = 0; kill < Number(process.env.WFR_KILLS ?? 3); kill++) {
      const random = Random.of(9, kill);
      const { begun, last } = await killedChild(parts, EVERY + 1 + random.below(6), random.below(60));
      expectLittleLost(begun, reached);
      reached = Math.max(reached, last);
    }
    expect(reached).toBeGreaterThan(EVERY);
    const { trainer, begun } = await tinyRun(gpu, parts, EVERY);
    expectLittleLost(begun, reached);
    expect(await trainer.parameters.snapshot()).toEqual(await whole.trainer.parameters.snapshot());
    trainer.destroy();
    whole.trainer.destroy();
  }, 900_000);
});

/** The run that follows one that told of step `reached` begins at a checkpoint, the last before that or a later one. */
function expectLittleLost(begun: number, reached: number): void {
  expect(begun % EVERY === 0 || begun === reached, `begun at ${begun}`).toBe(true);
  // A step is told before its checkpoint is on the disk.
  expect(begun, `${reached} steps were done`).toBeGreaterThanOrEqual(reached - EVERY);
}

/** Runs the tiny training in a process of its own and kills it some milliseconds after its `steps`-th step. */
function killedChild(parts: string, steps: number, after: number): Promise<{ begun: number; last: number }> {
  return new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, 'tiny_child.ts');
    const child = spawn(process.execPath, ['--import', 'tsx', script, parts], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let [begun, last] = [-1, -1];
    createInterface(child.stdout).on('line', (line) => {
      const number = Number(line.split(' ')[1]);
      if (line.startsWith('from')) begun = last = number;
      if (line.startsWith('step')) last = number;
      if (last === begun + steps) setTimeout(() => child.kill('SIGKILL'), after);
    });
    child.on('error', reject);
    child.on('close', () => resolve({ begun, last }));
  });
}

describe('a checkpoint', () => {
  /** A checkpoint of one step of a recipe, and what happens when another goes on with it. */
  async function resumed(
    [first, data]: readonly [Recipe, Partial<Data>?],
    [second, others]: readonly [Recipe, Partial<Data>?],
    forget = false,
  ): Promise<{ says: boolean; step: number }> {
    const gpu = await sharedGpu();
    const checkpoints = await CheckpointStore.open(folder);
    const one = await Trainer.create(gpu, first, sourceOf(first, data), { checkpoints });
    await one.run({ until: 1 });
    one.destroy();
    const two = await Trainer.create(gpu, second, sourceOf(second, others));
    try {
      const last = (await checkpoints.latest())!;
      if (forget) delete last.state.data;
      const says = two.restore(last);
      return { says, step: two.step };
    } finally {
      two.destroy();
    }
  }

  interface Data extends MemorySourceOptions {
    people: number;
    pictures: number;
    changed: boolean;
  }

  function sourceOf(recipe: Recipe, data: Partial<Data> = {}): MemorySource {
    const { people: count = 16, pictures = 4, changed = false, ...options } = data;
    const all = people(count, pictures, SIZE);
    if (changed) all[5].rgb[100] ^= 1;
    const usual = { side: SIZE, size: SIZE, batch: recipe.batch, seed: recipe.seed };
    return new MemorySource(all, { ...usual, augmentation: { mirror: 0.5, blur: 0.1 }, ...options });
  }

  const recipe = tinyRecipe({ epochs: 1 });
  const taught = { ...recipe, objective: { ...recipe.objective, distill: { cosine: 1, relation: 1 } } };
  const teacher = (factor: number) => ({
    data: Float32Array.from({ length: 64 * 16 }, (_, i) => (factor * i) % 13),
    dimension: 16,
  });

  it('of the same recipe and data is taken, whatever the order of the augmentations', async () => {
    const same = { augmentation: { blur: 0.1, mirror: 0.5 } };
    expect(await resumed([recipe], [tinyRecipe({ epochs: 1 }), same])).toEqual({ says: true, step: 1 });
  });

  it('of another recipe is refused, saying what differs', async () => {
    await expect(resumed([recipe], [{ ...recipe, seed: 3, clip: 1 }])).rejects.toThrow(
      /another run: seed, clip differ\./,
    );
  });

  it.each<[string, Partial<Data>, RegExp]>([
    ['another augmentation', { augmentation: { mirror: 0.5 } }, /another run: augmentation differs/],
    [
      'more pictures',
      { pictures: 5 },
      /data \(64 pictures of 16 people before, 80 pictures of 16 people now\)/,
    ],
    ['one pixel that changed', { changed: true }, /data \(64 pictures of 16 people as before, but others\)/],
  ])('and %s is refused', async (_, others, message) => {
    await expect(resumed([recipe], [recipe, others])).rejects.toThrow(message);
  });

  it('and another teacher is refused', async () => {
    const data = { teacher: teacher(1) };
    expect(await resumed([taught, data], [taught, { teacher: teacher(1) }])).toMatchObject({ step: 1 });
    await expect(resumed([taught, data], [taught, { teacher: teacher(2) }])).rejects.toThrow(
      /another run: teacher \(other embeddings\) differs/,
    );
    await expect(resumed([taught, data], [taught, { ...data, teacherMean: 1 }])).rejects.toThrow(
      /another run: share of the teacher's mean \(0\.8 before, 1 now\) differs/,
    );
  });

  it('that does not say what data it is of is taken, and that is told', async () => {
    const others = { augmentation: {} };
    expect(await resumed([recipe], [recipe, others], true)).toEqual({ says: false, step: 1 });
  });

  it('is taken for more epochs where the rate does not depend on them, else the way to go on is told', async () => {
    const constant = { ...recipe, schedule: { kind: 'constant', rate: 0.01 } } as const;
    expect(await resumed([constant], [{ ...constant, epochs: 2 }])).toMatchObject({ step: 1 });
    await expect(resumed([{ ...constant, epochs: 2 }], [constant])).rejects.toThrow(/planned for 2 epochs/);
    const falling = (epochs: number) =>
      ({ ...recipe, epochs, schedule: { kind: 'cosine', rate: 0.01, warmupEpochs: epochs / 10 } }) as const;
    await expect(resumed([falling(1)], [falling(2)])).rejects.toThrow(
      /planned for 1 epoch, and its rates with it \(cosine\).*--init weights\.safetensors/,
    );
    await expect(resumed([falling(1)], [{ ...falling(2), seed: 4 }])).rejects.toThrow(
      /epochs, seed, schedule differ/,
    );
  });
});
