import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { describe as describeAdapter } from '../../src/cli/doctor/adapter.js';
import { type AdapterFacts, type DoctorReport, renderReport } from '../../src/cli/doctor/report.js';
import { examineWeights } from '../../src/cli/doctor/weights.js';
import { run } from '../../src/cli/main.js';
import { REGISTRY } from '../../src/weights/registry.js';
import { saveWeights } from '../../src/weights/save.node.js';
import { smallRecogniser } from '../face/helpers.js';

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

const plain = { green: String, yellow: String, red: String, dim: String };

const facts: AdapterFacts = {
  description: 'Driver 1.2',
  vendor: 'maker',
  architecture: '',
  device: 'card',
  kind: 'hardware',
  tuning: null,
  features: ['subgroups'],
  limits: {
    maxBufferSize: 4 * 2 ** 30,
    maxStorageBufferBindingSize: 128 * 2 ** 20,
    maxStorageBuffersPerShaderStage: 8,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeInvocationsPerWorkgroup: 256,
  },
  speed: { gflops: 12345.6, firstMs: 3.2, roundTripMs: 0.05 },
};

describe('what the doctor says', () => {
  it('tells adapter, features, limits and speed', () => {
    const values = Object.fromEntries(describeAdapter(facts).map((f) => [f.name, `${f.state}: ${f.value}`]));
    expect(values.adapter).toBe('ok: maker, card');
    expect(values.driver).toBe('ok: Driver 1.2');
    expect(values.kind).toBe('ok: hardware');
    expect(values.tuning).toMatch(/^ok: none: wfr tune /);
    expect(values.subgroups).toBe('ok: yes');
    expect(values['shader-f16']).toMatch(/^note: no: /);
    expect(values.limits).toMatch(
      /128 MiB a binding, 4 GiB a buffer, 8 buffers .* 256 invocations and 16 KiB/,
    );
    expect(values.speed).toMatch(/12346 GFLOP\/s.* 0\.05 ms/);
  });

  it('says whether a tuning is in use', () => {
    const value = (f: AdapterFacts) => describeAdapter(f).find(({ name }) => name === 'tuning')?.value;
    const tuning = { side: 32, workgroups: 64 } as const;
    expect(value({ ...facts, tuning })).toBe('in use: tiles of 32×32, 64 workgroups fill the card');
    expect(value({ ...facts, kind: 'software' })).toBeUndefined();
  });

  it('says of a software adapter what it means', () => {
    const kind = describeAdapter({ ...facts, kind: 'software' }).find((f) => f.name === 'kind');
    expect(kind).toMatchObject({ state: 'note' });
    expect(kind?.advice).toMatch(/graphics card/);
  });

  it('puts what to do under what is missing', () => {
    const report: DoctorReport = {
      ready: false,
      findings: [{ name: 'adapter', state: 'missing', value: 'none', advice: 'install this\nand that' }],
      adapter: null,
      versions: {},
    };
    expect(renderReport(report, plain).split('\n')).toEqual([
      'missing  adapter  none',
      '                  → install this',
      '                    and that',
      '',
      'wfr cannot run here yet: see the lines marked "missing".',
    ]);
  });

  it('says which weights would be used, and what to do where there are none', async () => {
    const cache = mkdtempSync(path.join(tmpdir(), 'wfr-doctor-'));
    vi.stubEnv('WFR_CACHE', cache);
    vi.stubEnv('WFR_WEIGHTS', '');
    try {
      const { files } = REGISTRY.find((e) => e.name === 'mtcnn')!;
      mkdirSync(path.join(cache, 'mtcnn'));
      for (const f of files.slice(1)) writeFileSync(path.join(cache, 'mtcnn', f.name), 'not looked into');
      const value = async (name: string) => (await examineWeights()).find((f) => f.name === name);
      expect((await value('cache'))?.value).toBe(`${cache}: no weights that were pulled`);
      writeFileSync(path.join(cache, 'mtcnn', files[0].name), '');
      expect((await value('cache'))?.value).toBe(`${cache}: weights mtcnn`);

      vi.stubEnv('WFR_WEIGHTS', path.join(cache, 'gone'));
      expect(await value('recogniser')).toMatchObject({
        state: 'note',
        value: expect.stringContaining('does not exist'),
        advice: expect.stringContaining('wfr weights pull'),
      });
      await saveWeights(path.join(cache, 'mine.safetensors'), smallRecogniser());
      vi.stubEnv('WFR_WEIGHTS', cache);
      expect(await value('recogniser')).toMatchObject({
        state: 'ok',
        value: expect.stringContaining('mine.safetensors'),
      });
    } finally {
      vi.unstubAllEnvs();
      rmSync(cache, { recursive: true });
    }
  });

  it('examines this machine', async () => {
    const printed: string[] = [];
    vi.spyOn(console, 'log').mockImplementation((text) => void printed.push(text));
    await run(['doctor', '--json', '--seconds', '0']);
    const report: DoctorReport = JSON.parse(printed.join('\n'));
    expect(report.adapter?.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 2 ** 20);
    expect(report.adapter?.speed).toBeNull();
    expect(report.versions.webgpu).toMatch(/^\d+\.\d+/);
    expect(report.ready).toBe(report.findings.every((f) => f.state !== 'missing'));
  });
});
