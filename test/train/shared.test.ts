import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CheckpointStore, readCheckpoint } from '../../src/train/checkpoint.node.js';
import { readLog, TrainingLog } from '../../src/train/log.node.js';
import { prefetch } from '../../src/train/prefetch.node.js';
import { Random } from '../../src/train/random.js';
import { renderTrainingReport } from '../../src/train/report.js';
import { learningRate, type Schedule } from '../../src/train/schedule.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'wfr-train-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('random streams', () => {
  it('depend on seed and path alone', () => {
    const draw = (r: Random) => Array.from({ length: 5 }, () => r.next());
    const a = Random.of(7, 'order', 3);
    a.next();
    expect(draw(a.split('x'))).toEqual(draw(Random.of(7, 'order', 3).split('x')));
    expect(draw(Random.of(7, 'order', 3))).toEqual(draw(Random.of(7, 'order').split(3)));
    for (const other of [Random.of(8, 'order', 3), Random.of(7, 'order', 4), Random.of(7, 'augment', 3)])
      expect(draw(other)).not.toEqual(draw(Random.of(7, 'order', 3)));
  });

  it('are uniform, also over neighbouring keys', () => {
    const firsts = Array.from({ length: 20_000 }, (_, i) => Random.of(1, i).next());
    const stream = Random.of(1);
    const row = Array.from({ length: 20_000 }, () => stream.next());
    for (const values of [firsts, row]) {
      const bins = new Array<number>(20).fill(0);
      for (const v of values) bins[Math.floor(v * 20)]++;
      const chi = bins.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
      // 19 degrees of freedom: 43.8 is passed once in a thousand.
      expect(chi).toBeLessThan(43.8);
      let correlation = 0;
      for (let i = 1; i < values.length; i++) correlation += (values[i] - 0.5) * (values[i - 1] - 0.5);
      expect(Math.abs((correlation / values.length) * 12)).toBeLessThan(0.03);
    }
  });

  it('permute without loss, and normal numbers have mean 0 and deviation 1', () => {
    expect([...Random.of(3).permutation(101)].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 101 }, (_, i) => i),
    );
    const r = Random.of(4);
    const values = Array.from({ length: 20_000 }, () => r.normal());
    const mean = values.reduce((a, b) => a + b) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(values.reduce((s, v) => s + v * v, 0) / values.length - 1)).toBeLessThan(0.05);
  });
});

describe('schedules', () => {
  const base: Omit<Schedule, 'kind'> = { rate: 0.1, steps: 100, stepsPerEpoch: 5 };
  const rates = (s: Partial<Schedule> & { kind: Schedule['kind'] }) =>
    Array.from({ length: 101 }, (_, i) => learningRate({ ...base, ...s }, i));

  it('step: × .95 every ten epochs, as the original', () => {
    const r = rates({ kind: 'step' });
    expect(r[49]).toBeCloseTo(0.1, 12);
    expect(r[50]).toBeCloseTo(0.095, 12);
    expect(r[99]).toBeCloseTo(0.095, 12);
  });

  it('polynomial with warm-up rises linearly and ends near zero', () => {
    const r = rates({ kind: 'polynomial', warmup: 10 });
    expect(r[0]).toBeCloseTo(0.1 / 11, 12);
    expect(r[10]).toBeCloseTo(0.1, 12);
    expect(r[55]).toBeCloseTo(0.05, 12);
    expect(r[99]).toBeCloseTo(0.1 / 90, 12);
    expect(r[100]).toBe(r[99]);
  });

  it('cosine halves in the middle', () => {
    const r = rates({ kind: 'cosine', final: 0.02 });
    expect(r[0]).toBeCloseTo(0.1, 12);
    expect(r[50]).toBeCloseTo(0.06, 12);
  });

  it('one-cycle begins at 1/25, peaks at the full rate and ends at 1/250 000', () => {
    const r = rates({ kind: 'one-cycle' });
    expect(r[0]).toBeCloseTo(0.004, 12);
    expect(Math.max(...r)).toBeCloseTo(0.1, 12);
    expect(r.indexOf(Math.max(...r))).toBe(29);
    expect(r[99]).toBeCloseTo(4e-7, 12);
  });

  it('refuses a rate of zero', () => {
    expect(() => learningRate({ ...base, kind: 'constant', rate: 0 }, 0)).toThrow(/positive rate/);
  });
});

describe('checkpoints', () => {
  const checkpoint = (step: number) => ({
    step,
    state: { epoch: step / 2, name: 'ä' },
    buffers: { weights: new Float32Array([1, 2.5, -3, step]).buffer, empty: new ArrayBuffer(0) },
  });

  it('come back bit for bit, the last few are kept', async () => {
    const store = await CheckpointStore.open(folder, 2);
    for (const step of [10, 20, 30]) await store.save(checkpoint(step));
    expect(await store.steps()).toEqual([20, 30]);
    expect(await store.latest()).toEqual(checkpoint(30));
  });

  it('fall back to the newest whole one and say which is damaged', async () => {
    const store = await CheckpointStore.open(folder);
    for (const step of [1, 2, 3]) await store.save(checkpoint(step));
    const file = (n: number) => join(folder, `checkpoint-00000000${n}.wfr`);
    truncateSync(file(3), 150);
    const bytes = readFileSync(file(2));
    bytes[bytes.length - 1] ^= 1;
    writeFileSync(file(2), bytes);
    const damaged: string[] = [];
    expect((await store.latest((m) => damaged.push(m)))?.step).toBe(1);
    expect(damaged).toHaveLength(2);
    expect(damaged[0]).toMatch(/000000003\.wfr: damaged/);
    writeFileSync(file(1), 'something else');
    await expect(readCheckpoint(file(1))).rejects.toThrow(/not a checkpoint/);
    expect(await store.latest()).toBeUndefined();
  });

  it('of later steps, left over, do not count: what was just saved stays', async () => {
    for (const step of [100, 200]) writeFileSync(join(folder, `checkpoint-000000${step}.wfr`), 'garbage');
    const store = await CheckpointStore.open(folder, 2);
    for (const step of [10, 20, 30]) await store.save(checkpoint(step));
    expect(await store.steps()).toEqual([20, 30, 100, 200]);
    expect(await store.latest()).toEqual(checkpoint(30));
  });

  it('half-written files of an earlier run are removed', async () => {
    writeFileSync(join(folder, 'checkpoint-000000009.wfr.tmp'), 'half');
    writeFileSync(join(folder, 'other.tmp'), 'not ours');
    await CheckpointStore.open(folder);
    expect(readdirSync(folder)).toEqual(['other.tmp']);
  });
});

describe('the log', () => {
  it('drops what a resumed run writes again, and a torn last line', async () => {
    const file = join(folder, 'log.jsonl');
    const first = await TrainingLog.open(file);
    for (const step of [1, 2, 3]) first.write({ step, loss: 1 / step });
    writeFileSync(file, '{"step":3,"lo', { flag: 'a' });
    const second = await TrainingLog.open(file, 2);
    second.write({ step: 3, loss: 0 });
    expect(readLog(file).map((r) => r.loss)).toEqual([1, 0.5, 0]);
    expect(second.records).toEqual(readLog(file));
  });
});

describe('prefetching', () => {
  it('keeps the order, works ahead but not too far, and passes errors on in their turn', async () => {
    let running = 0;
    let most = 0;
    const work = async (n: number) => {
      most = Math.max(most, ++running);
      await new Promise((r) => setTimeout(r, n % 2 === 0 ? 8 : 1));
      running--;
      if (n === 6) throw new Error('six');
      return n;
    };
    const seen: number[] = [];
    await expect(async () => {
      for await (const n of prefetch([0, 1, 2, 3, 4, 5, 6, 7], 3, work)) seen.push(n);
    }).rejects.toThrow('six');
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    expect(most).toBeLessThanOrEqual(4);
    expect(most).toBeGreaterThan(1);
  });
});

describe('the report', () => {
  it('draws curves, escapes text and holds no script and no address', () => {
    const html = renderTrainingReport({
      title: 'A <b>net</b>',
      charts: [
        {
          title: 'loss',
          series: [{ name: 'train', points: Array.from({ length: 1000 }, (_, i) => [i, 1 / (i + 1)]) }],
        },
        { title: 'empty', series: [{ name: 'x', points: [] }] },
        {
          title: 'flat',
          percent: true,
          series: [
            { name: 'a', points: [[1, 0.5]] },
            { name: 'b', points: [[1, Number.NaN]] },
          ],
        },
      ],
      settings: [['data', '<dir>']],
    });
    expect(html).toContain('A &#60;b&#62;net');
    expect(html).not.toMatch(/<script|https?:|NaN|Infinity/);
    expect(html.match(/<svg/g)).toHaveLength(2);
  });
});
