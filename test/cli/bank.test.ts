import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Facebank } from '../../src/face/facebank.js';
import { loadBank } from '../../src/face/facebank.node.js';
import type { FaceRecognizer } from '../../src/face/recognizer.js';
import { complained, filesBelow, inDir, inTemporaryFolder, printed, put, wfr, wfrJson } from './helpers.js';

inTemporaryFolder();

const pictures = () => filesBelow(inDir('bank')).filter((f) => !f.startsWith('.'));

/** Loads the bank; how many pictures had to be embedded. */
async function embedded(weightsHash = 'these'): Promise<number> {
  const face = { box: { x1: 0, y1: 0, x2: 9, y2: 9 }, score: 1, landmarks: [], status: 'unknown' as const };
  const fake = { recognize: async () => [{ ...face, embedding: Float32Array.of(0.6, 0.8) }] };
  const loaded = await loadBank(inDir('bank'), async () => fake as unknown as FaceRecognizer, {
    weightsHash,
  });
  const all = loaded.bank.entries();
  expect(all).toHaveLength(loaded.pictures.filter((p) => !p.problem).length);
  for (const { embedding } of all) expect([...embedding]).toEqual([...Float32Array.of(0.6, 0.8)]);
  return loaded.embedded;
}

describe('a bank on disk', () => {
  it('embeds a new picture and no other, whatever the pictures are called', async () => {
    await put('bank/Ann/1.png', 20, 20, 1);
    await put('bank/张伟/1.png', 20, 20, 2);
    expect(await embedded()).toBe(2);
    expect(await embedded()).toBe(0);
    await put('bank/Ann/2.png', 20, 20, 3);
    expect(await embedded()).toBe(1);
    // The same bytes under another name, and a picture that went.
    await put('bank/Ben/renamed.png', 20, 20, 3);
    rmSync(inDir('bank', 'Ann', '1.png'));
    expect(await embedded()).toBe(0);
    expect(await embedded('other weights')).toBe(3);
    writeFileSync(inDir('bank', '.wfr-bank.json'), '{"damaged');
    expect(await embedded()).toBe(3);
  });
});

describe('wfr bank', () => {
  it('adds, lists and removes people', async () => {
    await put('a.png', 120, 100);
    await put('b.png', 100, 120, 3);
    const added = await wfrJson('bank', 'add', inDir('bank'), 'Łukasz Nowak', inDir('a.png'), inDir('b.png'));
    expect(process.exitCode ?? 0).toBe(0);
    expect(added.name).toBe('Łukasz Nowak');
    expect(added.added.map((p: { faces: number }) => p.faces > 0)).toEqual([true, true]);
    await wfrJson('bank', 'add', inDir('bank'), 'Łukasz Nowak', inDir('a.png'));
    expect(pictures()).toEqual(['a (2).png', 'a.png', 'b.png'].map((f) => `Łukasz Nowak/${f}`));
    expect(await wfrJson('bank', 'list', inDir('bank'))).toEqual({
      'Łukasz Nowak': { pictures: 3, usable: 3 },
    });
    await wfr('bank', 'remove', inDir('bank'), 'Nobody');
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toMatch(/Nobody is not in .*It holds: Łukasz Nowak/);
    await wfrJson('bank', 'remove', inDir('bank'), 'Łukasz Nowak');
    expect(pictures()).toEqual([]);
  });

  it('writes nothing when a picture or the name will not do', async () => {
    await put('a.png', 120, 100);
    writeFileSync(inDir('b.jpg'), 'no picture');
    writeFileSync(inDir('c.txt'), '');
    for (const [name, ...files] of [
      ['Ann', 'a.png', 'b.jpg'],
      ['Ann', 'a.png', 'c.txt'],
      ['Ann', 'a.png', 'missing.png'],
      ['../Ann', 'a.png'],
      ['.Ann', 'a.png'],
      ['', 'a.png'],
    ]) {
      process.exitCode = undefined;
      complained.length = 0;
      await wfr('bank', 'add', inDir('bank'), name, ...files.map((f) => inDir(f)));
      expect(process.exitCode, files.join()).toBe(1);
      expect(complained.join('')).toContain(name === 'Ann' ? inDir(files[1]) : 'cannot be a person');
      expect(existsSync(inDir('bank'))).toBe(false);
    }
  });

  it('says what a bank is where a file is named for one', async () => {
    await put('a.png', 120, 100);
    for (const args of [
      ['annotate', inDir('a.png'), '--out', inDir('out'), '--bank', inDir('a.png')],
      ['bank', 'check', inDir('a.png')],
      ['bank', 'add', inDir('a.png'), 'Ann', inDir('a.png')],
    ]) {
      process.exitCode = undefined;
      complained.length = 0;
      await wfr(...args);
      expect(process.exitCode, args.join(' ')).toBe(1);
      expect(complained.join('')).toContain(`${inDir('a.png')} is a file. A facebank is a folder with`);
    }
  });

  it('checks for pictures without faces, with several, of one person under two names', async () => {
    await put('bank/Ann/1.png', 120, 100);
    await put('bank/Ben/1.png', 120, 100);
    await put('bank/Ben/small.png', 8, 8);
    writeFileSync(inDir('bank', 'Ben', 'broken.jpg'), 'no picture');
    const { findings } = await wfrJson('bank', 'check', inDir('bank'));
    expect(process.exitCode).toBe(1);
    const of = (kind: string) =>
      findings.filter((f: { kind: string }) => f.kind === kind).map((f: { picture: string }) => f.picture);
    expect(of('unusable').sort()).toEqual(['Ben/broken.jpg', 'Ben/small.png']);
    expect(of('several faces')).toEqual(['Ann/1.png', 'Ben/1.png']);
    expect(of('lookalike')).toEqual(['Ann/1.png']);
  });

  it('finds the picture that is unlike its person’s others', () => {
    const entry = (picture: string, ...v: number[]) => ({
      name: 'Ann',
      picture,
      embedding: Float32Array.from(v),
    });
    const bank = new Facebank([entry('1', 1, 0), entry('2', 0.8, 0.6), entry('3', -0.6, 0.8)]);
    expect(bank.outliers(0.4).map((o) => o.entry.picture)).toEqual(['3']);
    expect(bank.lookalikes(-1)).toEqual([]);
  });
});

describe('wfr verify', () => {
  it('says same of one picture twice, and what it went by', async () => {
    await put('a.png', 120, 100);
    await put('b.png', 100, 120, 3);
    const same = await wfrJson('verify', inDir('a.png'), inDir('a.png'));
    expect(same.similarity).toBeCloseTo(1, 4);
    expect(same).toMatchObject({
      same: true,
      threshold: 0.4,
      basis: expect.stringContaining('not calibrated'),
    });
    const strict = await wfrJson('verify', inDir('a.png'), inDir('b.png'), '--threshold', '1');
    expect(process.exitCode ?? 0).toBe(0);
    expect(strict).toMatchObject({ same: false, threshold: 1, basis: 'given' });
    await wfr('verify', inDir('a.png'), inDir('b.png'), '--threshold', '-1');
    expect(printed.at(-1)).toMatch(/^same person: similarity -?\d\.\d{3}, threshold -1\.000 \(given\)$/);
  });

  it('names the picture without a face', async () => {
    await put('a.png', 120, 100);
    await put('small.png', 8, 8);
    await wfr('verify', inDir('a.png'), inDir('small.png'));
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toContain(`${inDir('small.png')}: no face of 20 pixels or more`);
  });
});
