import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { describe as describeTuning } from '../../src/cli/commands/tune.js';
import { run } from '../../src/cli/main.js';
import { toGpuOptions } from '../../src/cli/options.js';
import { resetTunings, storedTuning, storeTuning, tuningFile } from '../../src/cli/tuning.js';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { TILE_SIDES, type Tuning } from '../../src/gpu/traits.js';
import { tuneProducts } from '../../src/kernels/conv2d/tune.js';
import { card } from '../check_op.js';

let cache: string;
const printed: string[] = [];
const complained: string[] = [];

beforeEach(() => {
  cache = mkdtempSync(path.join(tmpdir(), 'wfr-tune-'));
  vi.stubEnv('WFR_CACHE', cache);
  printed.length = 0;
  complained.length = 0;
  vi.spyOn(console, 'log').mockImplementation((text) => void printed.push(String(text)));
  vi.spyOn(console, 'error').mockImplementation((text) => void complained.push(String(text)));
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  process.exitCode = undefined;
  rmSync(cache, { recursive: true, force: true });
});

const CARD = { vendor: 'maker', architecture: 'new', device: 'card', description: 'driver 1' };
const TUNING: Tuning = { side: 128, workgroups: 64 };

describe('the file of tunings', () => {
  it('gives back what was kept for an adapter and its driver', async () => {
    expect(await storedTuning(CARD)).toBeUndefined();
    await storeTuning(CARD, TUNING);
    await storeTuning({ ...CARD, device: 'other' }, { side: 32, workgroups: 8 });
    expect(await storedTuning(CARD)).toEqual(TUNING);
    expect(await storedTuning({ ...CARD, device: 'other' })).toEqual({ side: 32, workgroups: 8 });
    expect(await storedTuning({ ...CARD, description: 'driver 2' })).toBeUndefined();
    // No temporary file stays.
    expect(readdirSync(cache)).toEqual(['tuning.json']);
    expect(complained).toEqual([]);
  });

  it.each([
    ['half a file', '{"version": 1, "adap', /is no JSON/],
    ['something else', '[1, 2]', /holds no tunings/],
    ['null', 'null', /holds no tunings/],
    ['a list of adapters', '{"version": 1, "adapters": []}', /holds no tunings/],
    ['another version', '{"version": 2, "adapters": {}}', /is of another version than 1/],
  ])('warns of %s, ignores it and replaces it', async (_, content, why) => {
    writeFileSync(tuningFile(), content);
    expect(await storedTuning(CARD)).toBeUndefined();
    expect(complained).toHaveLength(1);
    expect(complained[0]).toMatch(/^wfr: .*tuning\.json is ignored: .*wfr tune writes it anew/);
    expect(complained[0]).toMatch(why);
    await storeTuning(CARD, TUNING);
    expect(await storedTuning(CARD)).toEqual(TUNING);
  });

  it.each([/"side": 128/, /\{\s*"side"[^}]*\}/])('warns of an entry that is no tuning', async (part) => {
    await storeTuning(CARD, TUNING);
    const text = readFileSync(tuningFile(), 'utf8');
    writeFileSync(tuningFile(), text.replace(part, part.source.includes('}') ? '0' : '"side": 99'));
    expect(await storedTuning(CARD)).toBeUndefined();
    expect(complained[0]).toMatch(/side must be 32, 64, 128/);
  });

  it('is read when a command opens the GPU', async () => {
    const first = await openGpu(toGpuOptions({}));
    expect(first.traits.tuning).toBeUndefined();
    await storeTuning(first.adapter.info, TUNING);
    first.close();
    const gpu = await openGpu(toGpuOptions({}));
    expect(gpu.traits.tuning).toEqual(TUNING);
    gpu.close();
    await run(['doctor', '--json', '--seconds', '0']);
    expect(JSON.parse(printed.join('\n')).adapter.tuning).toEqual(TUNING);
  });
});

describe('wfr tune', () => {
  it('keeps what it measures on a card and leaves a software adapter alone', async () => {
    await run(['tune', '--json']);
    const { adapter, tuning, file } = JSON.parse(printed.join('\n'));
    if (tuning) {
      expect(file).toBe(tuningFile());
      const { side, workgroups } = tuning;
      expect(await storedTuning(adapter)).toEqual({ side, workgroups });
    } else expect(file).toBeNull();
    expect(existsSync(tuningFile())).toBe(tuning !== null);
    expect(process.exitCode).toBeUndefined();
  }, 120_000);

  it('forgets with --reset, twice without complaint', async () => {
    await storeTuning(CARD, TUNING);
    for (let i = 0; i < 2; i++) {
      await run(['tune', '--reset']);
      expect(existsSync(tuningFile())).toBe(false);
    }
    expect(printed[0]).toContain('tuning.json');
    expect(complained).toEqual([]);
    await resetTunings();
  });

  it('says what it chose and what that brings', () => {
    const text = describeTuning({ ...TUNING, gains: { side: 1.066, workgroups: 1 } });
    expect(text).toBe(
      [
        'tiles       128×128: large layers 1.07 times as fast as usual',
        'workgroups  64 fill the card: layers of few pixels as usual',
      ].join('\n'),
    );
  });
});

describe('tuneProducts', () => {
  const withGpu = async (work: (gpu: Gpu) => Promise<void>): Promise<void> => {
    const gpu = await openGpu();
    try {
      await work(gpu);
    } finally {
      gpu.close();
    }
  };

  // A software adapter compiles each of a card's kernels for seconds; its limit leaves out the largest tile.
  it('gives a tuning that openGpu takes, and leaves no memory behind', { timeout: 300_000 }, () =>
    withGpu(async (gpu) => {
      const shares: number[] = [];
      const onProgress = (share: number) => void shares.push(share);
      const traits = { ...card(gpu.traits), maxWorkgroupBytes: 16384 };
      const { gains, ...tuning } = await tuneProducts(gpu, { traits, onProgress });
      expect(TILE_SIDES.filter((side) => side < 128)).toContain(tuning.side);
      expect([16, 32, 64, 128, 256, 512]).toContain(tuning.workgroups);
      for (const gain of Object.values(gains)) expect(gain).toBeGreaterThanOrEqual(1);
      expect(shares).toEqual([...shares].sort((a, b) => a - b));
      expect(shares.at(-1)).toBe(1);
      // What is left are staging buffers, which the device keeps.
      expect(gpu.stats.bytes).toBeLessThan(2 ** 20);
      const again = await openGpu({ tuning });
      expect(again.traits.tuning).toEqual(tuning);
      again.close();
    }),
  );

  it('stops when asked', () =>
    withGpu(async (gpu) => {
      const options = { traits: card(gpu.traits), signal: AbortSignal.abort() };
      await expect(tuneProducts(gpu, options)).rejects.toThrow(/abort/);
      expect(gpu.stats.bytes).toBeLessThan(2 ** 20);
    }));

  it('gives a software adapter the default at once', () =>
    withGpu(async (gpu) => {
      const traits = { ...gpu.traits, kind: 'cpu' as const };
      expect(await tuneProducts(gpu, { traits })).toEqual({
        side: 64,
        workgroups: 128,
        gains: { side: 1, workgroups: 1 },
      });
    }));
});
