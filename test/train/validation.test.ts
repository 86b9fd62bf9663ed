import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GpuError } from '../../src/gpu/errors.js';
import { encodePicture } from '../../src/media/annotate.node.js';
import { Validation } from '../../src/train/validation.node.js';
import { WeightsError } from '../../src/weights/errors.js';
import { blobs } from '../face/helpers.js';

const SIDE = 24;
let folder: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'wfr-validation-'));
  for (const [i, person] of ['a', 'b', 'c'].entries()) {
    mkdirSync(join(folder, person));
    for (const k of [0, 1])
      writeFileSync(join(folder, person, `${k}.png`), await encodePicture(blobs(30, 30, i + k), 'png'));
  }
  const pairs = ['a', 'b', 'c'].flatMap((p) => [`${p}/0.png ${p}/1.png 1`, `${p}/0.png d/0.png 0`]);
  writeFileSync(join(folder, 'pairs.txt'), [...pairs, ...pairs].join('\n'));
  mkdirSync(join(folder, 'd'));
  writeFileSync(join(folder, 'd/0.png'), 'no picture');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (more: Partial<Parameters<typeof Validation.open>[0]> = {}) =>
  Validation.open({
    pairs: join(folder, 'pairs.txt'),
    data: folder,
    side: SIDE,
    align: async () => blobs(SIDE, SIDE),
    ...more,
  });

describe('a list to validate on', () => {
  const list = (lines: readonly string[], limit?: number) => {
    const pairs = join(folder, 'some.txt');
    writeFileSync(pairs, lines.join('\n'));
    return Validation.list({ pairs, data: folder, limit });
  };
  const same = ['a', 'b', 'c', 'a'].map((p) => `${p}/0.png ${p}/1.png 1`);
  const other = 'a/0.png b/0.png 0';

  it('holds pairs of both kinds, in two folds', async () => {
    await expect(list(same)).rejects.toThrow(/some\.txt: the 4 pairs .* are all of one person\..*both kinds/);
    await expect(list([other, other])).rejects.toThrow(/are all of different people/);
    await expect(list(same.slice(0, 1))).rejects.toThrow(/at least two folds/);
    // Of each ten the middle one.
    const mostly = Array.from({ length: 100 }, (_, i) => (i % 10 === 0 ? other : same[0]));
    await expect(list(mostly, 10)).rejects.toThrow(/the 10 pairs .* use more of it \(--val-limit\)/);
    expect((await list([...same, other])).set.pairs).toHaveLength(5);
  });

  it('names no picture that is not there, and the advice is one that can be followed', async () => {
    const failure = await list([...same, other, 'a/0.png a/7.png 1']).catch((e: Error) => e.message);
    expect(failure).toMatch(/some\.txt, line 6: there is no .*7\.png\. Put the picture there, or take/);
    expect(failure).not.toMatch(/--skip-missing/);
  });
});

describe('pictures to validate on', () => {
  it('that cannot be read or show no face are told and do not end the run', async () => {
    const problems: string[] = [];
    const onPicture = (id: string, problem?: string) => problem && problems.push(`${id}: ${problem}`);
    await open({ onPicture });
    expect(problems).toEqual([expect.stringMatching(/^d\/0\.png: not a picture.*pairs count as different/)]);
    problems.length = 0;
    await open({ onPicture, align: async () => undefined });
    expect(problems).toHaveLength(7);
    expect(problems[0]).toMatch(/no face found/);
  });

  it('end it where the fault is not of one picture', async () => {
    for (const fault of [new GpuError('device lost'), new WeightsError('no detector')]) {
      const align = async () => {
        throw fault;
      };
      await expect(open({ align })).rejects.toBe(fault);
    }
  });

  it('are prepared no further once the run is to stop', async () => {
    const stop = new AbortController();
    let count = 0;
    const onPicture = () => {
      if (++count === 2) stop.abort();
    };
    await expect(open({ onPicture, signal: stop.signal })).rejects.toMatchObject({ name: 'AbortError' });
    expect(count).toBe(2);
  });
});
