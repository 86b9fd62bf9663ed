import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { iresnet } from '../../src/nets/iresnet.js';
import { mobileFaceNet, PAPER } from '../../src/nets/mobilefacenet.js';
import { recogniserOf } from '../../src/nets/registry.js';
import { CheckpointStore } from '../../src/train/checkpoint.node.js';
import { classChunks, initialWeights, sampleClasses, trainingGraph } from '../../src/train/objective.js';
import { Random } from '../../src/train/random.js';
import { type Recipe, trainableOptions } from '../../src/train/recipe.js';
import { DivergedError, type StepReport, Trainer } from '../../src/train/trainer.js';
import { sharedGpu } from '../check_op.js';
import { tinyRecipe, tinySource } from './tiny.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'wfr-trainer-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function curve(recipe: Recipe, steps: number, teacher?: { data: Float32Array; dimension: number }) {
  const trainer = await Trainer.create(await sharedGpu(), recipe, tinySource(recipe, teacher));
  const reports: StepReport[] = [];
  try {
    await trainer.run({ until: steps, onStep: (r) => void reports.push(r) });
    return { reports, weights: await trainer.weights() };
  } finally {
    trainer.destroy();
  }
}

const losses = ({ reports }: { reports: StepReport[] }) => reports.map((r) => r.loss);

describe('training', () => {
  it('learns 64 pictures of 16 people by heart', async () => {
    const { reports } = await curve(tinyRecipe({ epochs: 40 }), 160);
    const last = reports.slice(-8);
    expect(reports[0].loss).toBeGreaterThan(2.5);
    expect(last.reduce((sum, r) => sum + r.loss, 0) / 8).toBeLessThan(0.1);
    expect(last.every((r) => r.accuracy === 1)).toBe(true);
  });

  it('learns from a teacher without identities', async () => {
    const data = Float32Array.from({ length: 64 * 16 }, (_, i) =>
      Random.of(3, Math.floor(i / 64), i % 16).normal(),
    );
    const recipe = tinyRecipe({ epochs: 30, objective: { distill: { cosine: 1, relation: 5 } } });
    const { reports } = await curve(recipe, 120, { data, dimension: 16 });
    expect(reports[0].distance).toBeGreaterThan(0.8);
    expect(reports[119].distance).toBeLessThan(0.35);
    expect(reports[119].relation).toBeLessThan(0.5 * reports[0].relation!);
  });

  it('both losses together, a teacher of another length, some of the classes', async () => {
    const data = Float32Array.from({ length: 64 * 10 }, (_, i) =>
      Random.of(3, Math.floor(i / 40), i % 10).normal(),
    );
    const { margin } = tinyRecipe().objective.identity!;
    const objective = {
      identity: { margin, weight: 0.5, sampleRate: 0.5 },
      distill: { cosine: 1, relation: 1 },
    };
    const run = await curve(tinyRecipe({ objective, batch: 8 }), 40, { data, dimension: 10 });
    expect(losses(run)[39]).toBeLessThan(0.7 * losses(run)[0]);
    // What serves training only is not part of the net.
    expect([...run.weights.keys()].some((name) => name.startsWith('training.'))).toBe(false);
  });

  it('gives the same ten losses on two runs, another seed others', async () => {
    const first = await curve(tinyRecipe(), 10);
    const second = await curve(tinyRecipe(), 10);
    expect(losses(second)).toEqual(losses(first));
    expect(second.weights).toEqual(first.weights);
    expect(losses(await curve(tinyRecipe({ seed: 2 }), 10))).not.toEqual(losses(first));
  });

  it('accumulated batches make one step', async () => {
    const run = await curve(tinyRecipe({ accumulate: 2, batch: 8 }), 12);
    expect(run.reports).toHaveLength(12);
    expect(losses(run)[11]).toBeLessThan(losses(run)[0]);
  });

  it('accumulated batches are as many epochs as were asked for; each ends with its last batch, after a checkpoint', async () => {
    // Four batches an epoch, three a step.
    const recipe = tinyRecipe({ accumulate: 3, epochs: 3 });
    const checkpoints = await CheckpointStore.open(folder, 9);
    const trainer = await Trainer.create(await sharedGpu(), recipe, tinySource(recipe), { checkpoints });
    const ends: [epoch: number, step: number, saved: number | undefined][] = [];
    const failing = async (epoch: number, step: number) => {
      ends.push([epoch, step, (await checkpoints.steps()).at(-1)]);
      if (step === 3) throw new Error('no validation');
    };
    expect(trainer.steps).toBe(4);
    await expect(trainer.run({ onEpoch: failing })).rejects.toThrow('no validation');
    await trainer.run({ onEpoch: failing });
    expect(ends).toEqual([
      [1, 2, 2],
      [2, 3, 3],
      [3, 4, 4],
    ]);
    trainer.destroy();
  });

  it('and must make one step at least', async () => {
    const recipe = tinyRecipe({ accumulate: 9, epochs: 2 });
    await expect(Trainer.create(await sharedGpu(), recipe, tinySource(recipe))).rejects.toThrow(
      /The run has 8 batches, a step takes 9 \(accumulate\): not one step/,
    );
  });

  it('computing maps again gives the same, in less memory; half precision nearly the same', async () => {
    const gpu = await sharedGpu();
    const plain = tinyRecipe();
    const saving = { ...plain, recompute: true };
    expect(Trainer.plan(gpu, saving, tinySource(plain)).arena).toBeLessThan(
      Trainer.plan(gpu, plain, tinySource(plain)).arena,
    );
    const want = losses(await curve(plain, 4));
    expect(losses(await curve(saving, 4))).toEqual(want);
    const half = losses(await curve({ ...plain, precision: 'f16' }, 4));
    half.forEach((loss, i) => {
      expect(Math.abs(loss - want[i])).toBeLessThan(0.05 * want[i]);
    });
  });

  it('frozen weights stay, bit for bit', async () => {
    const { weights } = await curve(tinyRecipe({ freeze: ['stem.conv', 'blocks.0'] }), 3);
    const free = await curve(tinyRecipe(), 3);
    const g = graph(16);
    const { values } = initialWeights(g, 1);
    expect(weights.get('stem.conv.weight')!.data).toEqual(values.get('stem.conv.weight')!.data);
    expect(weights.get('blocks.0.expand.conv.weight')!.data).toEqual(
      values.get('blocks.0.expand.conv.weight')!.data,
    );
    expect(free.weights.get('stem.conv.weight')!.data).not.toEqual(values.get('stem.conv.weight')!.data);
  });

  it('takes no more memory with more steps: device and process, over 500', async () => {
    const { device, heap, resident } = await memoryOfChild();
    expect(device.at(-1)).toEqual(device[0]);
    // A batch of 16 pictures is 196 kB: kept at every step, 20 MB for each hundred. The heap swings by what lies in flight.
    expect(Math.min(...heap.slice(3)) - Math.max(...heap.slice(0, 3)), `heap: ${heap}`).toBeLessThan(2e6);
    expect(resident.at(-1)! - resident[0], `resident: ${resident}`).toBeLessThan(8e6);
  }, 240_000);
});

interface MemoryReport {
  device: unknown[];
  heap: number[];
  resident: number[];
}

/** Device memory, JavaScript heap and resident memory of a process after 100, 200, … 600 steps. */
async function memoryOfChild(): Promise<MemoryReport> {
  const script = join(import.meta.dirname, 'memory_child.ts');
  const child = spawn(process.execPath, ['--expose-gc', '--import', 'tsx', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  for await (const chunk of child.stdout) out += chunk;
  return JSON.parse(out);
}

const graph = (batch: number) => {
  const recipe = tinyRecipe({ batch });
  const net = recogniserOf(recipe.net, recipe.description)!;
  return trainingGraph(net, recipe.objective, { batch, size: recipe.size, classes: 16, teacherDimension: 0 });
};

describe('what goes wrong is said', () => {
  it('a loss that is no number names the batch and the first layer, checkpoints stay whole', async () => {
    const gpu = await sharedGpu();
    const recipe = tinyRecipe();
    const source = tinySource(recipe);
    const checkpoints = await CheckpointStore.open(folder);
    const trainer = await Trainer.create(gpu, recipe, poisoned(source, 4), {
      checkpoints,
      checkpointEvery: 3,
    });
    const failure = await trainer.run().catch((e: unknown) => e);
    expect(failure).toBeInstanceOf(DivergedError);
    expect((failure as Error).message).toMatch(/at step 5 \(pictures p\d\d\/\d\.png/);
    expect((failure as Error).message).toMatch(/not finite is in conv2d stem\.conv, at step 5/);
    expect((failure as Error).message).toMatch(/checkpoint of step 3 is whole/);
    expect(await checkpoints.steps()).toEqual([0, 3]);
    trainer.destroy();
  });

  it('watched from the start, the first value that is not finite ends the run, without repeating it', async () => {
    const recipe = tinyRecipe();
    const trainer = await Trainer.create(await sharedGpu(), recipe, poisoned(tinySource(recipe), 2), {
      detectAnomaly: true,
    });
    const failure = await trainer.run().catch((e: unknown) => e);
    expect(failure).toBeInstanceOf(DivergedError);
    expect((failure as Error).message).toMatch(
      /first value that is not finite is in conv2d stem\.conv, at step 3 \(pictures p\d\d\/\d\.png/,
    );
    expect(trainer.step).toBe(2);
    trainer.destroy();
  });

  it('watching changes no number', async () => {
    const recipe = tinyRecipe();
    const trainer = await Trainer.create(await sharedGpu(), recipe, tinySource(recipe), {
      detectAnomaly: true,
    });
    await trainer.run({ until: 3 });
    expect(await trainer.weights()).toEqual((await curve(recipe, 3)).weights);
    trainer.destroy();
  });

  it.each([
    [['stm'], /begin with "stm"\. The net has stem, dw, blocks\.0–2, head, gdc, embedding, embedding_bn/],
    [['stem', ''], /begin with ""/],
  ])('what is to be frozen must be there: %s', async (freeze, message) => {
    const recipe = tinyRecipe({ freeze });
    await expect(Trainer.create(await sharedGpu(), recipe, tinySource(recipe))).rejects.toThrow(message);
  });

  it('a name to freeze is its parts, not its letters', () => {
    const { frozen } = trainableOptions(tinyRecipe({ freeze: ['blocks.1', 'stem'] }));
    const names = [
      'blocks.1',
      'blocks.1.conv.weight',
      'blocks.10.conv.weight',
      'stem.bn.bias',
      'stems.weight',
    ];
    expect(names.map((name) => frozen!(name))).toEqual([true, true, false, true, false]);
  });

  it('and something must be left to train', async () => {
    const data = new Float32Array(64 * 16).map((_, i) => i % 7);
    const freeze = ['stem', 'dw', 'blocks', 'head', 'gdc', 'embedding', 'embedding_bn'];
    const recipe = tinyRecipe({ freeze, objective: { distill: { cosine: 1, relation: 1 } } });
    const source = tinySource(recipe, { data, dimension: 16 });
    await expect(Trainer.create(await sharedGpu(), recipe, source)).rejects.toThrow(/Every weight is frozen/);
  });

  it('identities or a teacher are needed', async () => {
    const recipe = tinyRecipe({ objective: {} });
    await expect(Trainer.create(await sharedGpu(), recipe, tinySource(recipe))).rejects.toThrow(
      /There is no loss/,
    );
    const taught = tinyRecipe({ objective: { distill: { cosine: 1, relation: 5 } } });
    await expect(Trainer.create(await sharedGpu(), taught, tinySource(taught))).rejects.toThrow(
      /no teacher to learn from/,
    );
  });

  it('a step that is too large is planned, not allocated', async () => {
    const gpu = await sharedGpu();
    const before = { ...gpu.stats };
    const recipe = tinyRecipe();
    const small = Trainer.plan(gpu, recipe, tinySource(recipe));
    const large = Trainer.plan(gpu, { ...recipe, batch: 64 }, tinySource(recipe));
    expect(large.arena).toBeGreaterThan(3 * small.arena);
    expect(large.flops).toBeGreaterThan(3 * small.flops);
    expect(gpu.stats).toEqual(before);
  });
});

/** A source whose batch of one step holds a picture that is no number. */
function poisoned(source: ReturnType<typeof tinySource>, step: number): ReturnType<typeof tinySource> {
  const batches = source.batches.bind(source);
  source.batches = async function* (from: number) {
    let at = from;
    for await (const batch of batches(from)) {
      if (at++ === step) batch.x[100] = Number.NaN;
      yield batch;
    }
  };
  return source;
}

describe('classes', () => {
  it('come in chunks that every device can bind', () => {
    expect(classChunks(100_000, 512)).toEqual([65_536, 34_464]);
    expect(classChunks(10, 128)).toEqual([10]);
    expect(classChunks(20, 4, 512 * 4 * 8)).toEqual([8, 8, 4]);
  });

  it('are sampled: the own ones and others, in rising order', () => {
    const labels = Uint32Array.from([7, 3, 7, 0xffffffff]);
    const chosen = sampleClasses(labels, 20, 6, Random.of(1));
    expect(chosen.selection).toHaveLength(6);
    expect([...chosen.selection]).toEqual([...new Set(chosen.selection)].sort((a, b) => a - b));
    expect([...chosen.labels].map((p) => (p < 6 ? chosen.selection[p] : -1))).toEqual([7, 3, 7, -1]);
  });
});

describe('weights from another input size', () => {
  it('fit: the filter over the whole map is resampled, its sum kept', () => {
    const [half, full] = [56, 112].map((size) => mobileFaceNet([1, size, size, 3], PAPER));
    const { values } = initialWeights(half, 3);
    const { values: fitted, missing } = initialWeights(full, 4, values);
    expect(missing).toEqual([]);
    const [from, to] = [values, fitted].map((v) => v.get('gdc.conv.weight')!);
    expect([from.shape, to.shape]).toEqual([
      [512, 1, 4, 4],
      [512, 1, 7, 7],
    ]);
    const flat = new Map(
      [...values].map(([name, v]) => [
        name,
        name === 'gdc.conv.weight' ? { ...v, data: v.data.map(() => 0.5) } : v,
      ]),
    );
    const sum = initialWeights(full, 4, flat)
      .values.get('gdc.conv.weight')!
      .data.subarray(0, 49)
      .reduce((a, b) => a + b);
    expect(sum).toBeCloseTo(0.5 * 16, 4);
    expect(fitted.get('stem.conv.weight')).toEqual(values.get('stem.conv.weight'));
  });

  it('of another net are refused, not passed over', () => {
    const { values } = initialWeights(iresnet([1, 32, 32, 3], { depth: 18 }), 3);
    expect(() =>
      initialWeights(mobileFaceNet([1, 56, 56, 3], PAPER), 4, values, 'other.safetensors'),
    ).toThrow(
      /^other\.safetensors fits nothing of .*: the net needs stem\.conv\.weight, .* there are conv1\.weight/,
    );
    expect(() => initialWeights(mobileFaceNet([1, 56, 56, 3], PAPER), 4, new Map())).toThrow(/fits nothing/);
  });

  it('of another width are refused by name', () => {
    const { values } = initialWeights(mobileFaceNet([1, 56, 56, 3], { ...PAPER, head: 256 }), 3);
    expect(() => initialWeights(mobileFaceNet([1, 56, 56, 3], PAPER), 4, values)).toThrow(
      /head\.conv\.weight has shape \[256/,
    );
  });
});
