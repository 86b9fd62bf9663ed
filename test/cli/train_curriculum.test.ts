// `wfr train --first-size`: a run at a smaller size whose weights the run at full size begins with.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readLog } from '../../src/train/log.node.js';
import { openWeights } from '../../src/weights/save.node.js';
import { drawnFace, startTrain, train } from './train_helpers.js';

let folder: string;
const at = (...parts: string[]) => path.join(folder, ...parts);
const state = async (...parts: string[]) => (await openWeights([at(...parts)])).state;
const steps = (...parts: string[]) => readLog(at(...parts, 'log.jsonl')).map(({ step }) => step);

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-curriculum-'));
  for (let person = 0; person < 6; person++) {
    await mkdir(at('faces', `p${person}`), { recursive: true });
    for (let k = 0; k < 4; k++)
      await writeFile(at('faces', `p${person}`, `${k}.png`), await drawnFace(person, k));
  }
});
afterAll(() => rm(folder, { recursive: true }));

const common = (out: string): string[] => [
  ...['--data', at('faces'), '--out', at(out), '--batch', '8', '--embedding', '32', '--margin', '0.2'],
  ...['--scale', '16', '--log-every', '1', '--checkpoint-every', '2'],
];
const curriculum = (out: string): string[] => [
  ...common(out),
  ...['--first-size', '32', '--first-epochs', '3', '--first-lr', '0.01'],
  ...['--size', '48', '--epochs', '2', '--lr', '0.002'],
];

describe('wfr train --first-size', () => {
  it('is the two runs that one would make by hand, and one command repeats it', async () => {
    const one = await train(...curriculum('one'));
    expect(one, one.stderr).toMatchObject({ status: 0 });
    const first = [...common('half'), '--size', '32', '--epochs', '3', '--lr', '0.01'];
    expect(await train(...first)).toMatchObject({ status: 0 });
    const then = [...common('full'), '--init', at('half', 'weights.safetensors')];
    expect(await train(...then, '--size', '48', '--epochs', '2', '--lr', '0.002')).toMatchObject({
      status: 0,
    });
    expect(steps('one', 'first')).toEqual(steps('half'));
    expect(steps('one')).toEqual(steps('full'));
    expect(await state('one', 'first', 'weights.safetensors')).toEqual(
      await state('half', 'weights.safetensors'),
    );
    expect(await state('one', 'weights.safetensors')).toEqual(await state('full', 'weights.safetensors'));
    expect(await readFile(at('one', 'weights.md'), 'utf8')).toContain('--first-size 32');
    // Pictures are packed once for both.
    expect(existsSync(at('one', 'first', 'cache'))).toBe(false);

    // Without --resume nothing is trained for hours before the run at full size is refused.
    const again = await train(...curriculum('one'));
    expect(again).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/holds the checkpoints of a run/),
    });
    expect(again.stderr).not.toMatch(/first at/);
  }, 300_000);

  it('goes on in the part where it was stopped', async () => {
    const { child, ended } = startTrain(...curriculum('stopped'));
    while (!existsSync(at('stopped', 'first', 'log.jsonl')) && child.exitCode === null) await sleep(5);
    while (steps('stopped', 'first').length < 2 && child.exitCode === null) await sleep(5);
    child.kill('SIGTERM');
    const { status, stderr } = await ended;
    expect(status, stderr).toBe(130);
    expect(existsSync(at('stopped', 'weights.safetensors'))).toBe(false);
    const resumed = await train(...curriculum('stopped'), '--resume');
    expect(resumed, resumed.stderr).toMatchObject({ status: 0 });
    expect(await state('stopped', 'weights.safetensors')).toEqual(await state('one', 'weights.safetensors'));
    // What the first part was belongs to the run.
    for (const others of [
      [...curriculum('stopped'), '--first-epochs', '2'],
      [...common('stopped'), '--size', '48', '--epochs', '2', '--lr', '0.002'],
    ])
      expect(await train(...others, '--resume')).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(/another run: curriculum differs/),
      });
    await rm(at('stopped', 'first'), { recursive: true });
    const done = await train(...curriculum('stopped'), '--resume');
    expect(done.stderr).not.toMatch(/first at/);
    expect(done.status).toBe(0);
  }, 300_000);

  it('is refused before its first part when its second cannot be', async () => {
    const { status, stderr } = await train(...curriculum('large'), '--size', '112', '--memory', '0.1');
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(/A batch of 8 needs \d+ MB, more than 100 MB/);
    expect(existsSync(at('large', 'first'))).toBe(false);
  }, 60_000);

  it('is asked for whole', async () => {
    const { status, stderr } = await train(...common('orphan'), '--first-epochs', '3');
    expect(status).toBe(1);
    expect(stderr).toMatch(/--first-epochs is for a first run at another size: give --first-size too/);
    expect(existsSync(at('orphan'))).toBe(false);
  }, 60_000);
});
