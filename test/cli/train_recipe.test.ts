import { describe, expect, it } from 'vitest';
import { duration } from '../../src/cli/train/progress.js';
import { type RecipeFlags, recipeOf } from '../../src/cli/train/recipe.js';

describe('recipes', () => {
  const flags: RecipeFlags = {
    net: 'mobilefacenet',
    size: 112,
    batch: 64,
    epochs: 20,
    optimizer: 'sgd',
    momentum: 0.9,
    schedule: 'polynomial',
    scale: 64,
    gamma: 0,
    sampleRate: 1,
    identityWeight: 1,
    distillWeight: 1,
    relationWeight: 5,
    clip: 5,
    accumulate: 1,
    precision: 'f32',
    seed: 1,
  };
  const people = { identities: 10, isTaught: false };

  it('have the defaults that the help names', () => {
    const recipe = recipeOf(flags, people);
    expect(recipe.schedule).toEqual({ kind: 'polynomial', rate: 0.00625, warmupEpochs: 1 });
    expect(recipe.optimizer).toEqual({ kind: 'sgd', momentum: 0.9, weightDecay: 5e-4 });
    expect(recipe.objective.identity!.margin).toMatchObject({
      m1: 1,
      m2: 0.5,
      m3: 0,
      scale: 64,
      exact: false,
    });
    expect(recipe.objective.distill).toBeUndefined();
    expect(recipeOf({ ...flags, net: 'iresnet50' }, people)).toMatchObject({
      net: 'iresnet',
      description: { config: { depth: 50 } },
    });
    expect(recipeOf(flags, { ...people, isTaught: true }).objective.identity).toBeUndefined();
  });

  it('look ahead along the momentum where there is one', () => {
    expect(recipeOf({ ...flags, nesterov: true }, people).optimizer).toMatchObject({ nesterov: true });
    expect(() => recipeOf({ ...flags, nesterov: true, momentum: 0 }, people)).toThrow(/--momentum above 0/);
    expect(() => recipeOf({ ...flags, nesterov: true, optimizer: 'adamw' }, people)).toThrow(
      /needs --optimizer sgd/,
    );
  });

  it.each([
    ['cosface', undefined, [1, 0, 0.4]],
    ['arcface', '0.3', [1, 0.3, 0]],
    ['combined', '1.2,0.1,0.05', [1.2, 0.1, 0.05]],
    ['softmax', undefined, [1, 0, 0]],
  ] as const)('%s with margin %s', (loss, margin, [m1, m2, m3]) => {
    expect(recipeOf({ ...flags, loss, margin }, people).objective.identity!.margin).toMatchObject({
      m1,
      m2,
      m3,
    });
  });

  it('refuse margins that mean nothing', () => {
    expect(() => recipeOf({ ...flags, margin: 'wide' }, people)).toThrow(/--margin wide/);
    expect(() => recipeOf({ ...flags, margin: '1,2' }, people)).toThrow(/takes one number/);
    expect(() => recipeOf({ ...flags, loss: 'combined', margin: '2,0.5,0' }, people)).toThrow(/at most 2π/);
  });

  it.each<[Partial<RecipeFlags>, RegExp]>([
    [{ margin: '5' }, /--margin 5: the margin of arcface is an angle in radians, from 0 and below π/],
    [{ margin: '3.1416' }, /below π/],
    [{ margin: '' }, /give a number of at least 0/],
    [{ loss: 'cosface', margin: '1.5' }, /margin of cosface is a difference of cosines, from 0 to 1/],
    [{ loss: 'combined', margin: '1,0.3,1.2' }, /m3 is a difference of cosines/],
    [{ loss: 'softmax', margin: '0.3' }, /softmax has no margin/],
  ])('refuse a margin that no picture could keep: %o', (changes, message) => {
    expect(() => recipeOf({ ...flags, ...changes }, people)).toThrow(message);
  });

  it('need two people or a teacher', () => {
    const one = { identities: 1, isTaught: false };
    expect(() => recipeOf(flags, one)).toThrow(/shows one person: at least two people are needed.*--distill/);
    expect(() => recipeOf(flags, { ...one, identities: 0 })).toThrow(/shows nobody by name: at least two/);
    expect(() => recipeOf({ ...flags, loss: 'arcface' }, { identities: 1, isTaught: true })).toThrow(
      /with --loss none/,
    );
    expect(() => recipeOf({ ...flags, loss: 'none' }, people)).toThrow(/--loss none leaves nothing/);
    expect(recipeOf(flags, { identities: 1, isTaught: true }).objective.distill).toBeDefined();
  });

  it('refuse to freeze what has no name', () => {
    expect(() => recipeOf({ ...flags, freeze: 'stem,' }, people)).toThrow(/--freeze stem,: an empty name/);
    expect(recipeOf({ ...flags, freeze: 'stem, dw' }, people).freeze).toEqual(['stem', 'dw']);
  });

  it('durations read well', () => {
    expect([20, 150, 7300].map(duration)).toEqual(['20 s', '3 min', '2 h 2 min']);
  });
});
