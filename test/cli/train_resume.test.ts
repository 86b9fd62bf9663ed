// Interrupted `wfr train`, through packs, worker threads and the command line.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readLog } from '../../src/train/log.node.js';
import { openWeights } from '../../src/weights/save.node.js';
import { drawnFace, startTrain, train } from './train_helpers.js';

const [PEOPLE, PICTURES, BATCH, EPOCHS, EVERY] = [12, 4, 8, 4, 3];
const STEPS = ((PEOPLE * PICTURES) / BATCH) * EPOCHS;
let folder: string;
const at = (...parts: string[]) => path.join(folder, ...parts);

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-train-resume-'));
  for (let person = 0; person < PEOPLE; person++) {
    await mkdir(at('faces', `p${person}`), { recursive: true });
    for (let k = 0; k < PICTURES; k++)
      await writeFile(at('faces', `p${person}`, `${k}.png`), await drawnFace(person, k));
  }
});
afterAll(() => rm(folder, { recursive: true }));

const flags = (out: string, epochs = EPOCHS): string[] => [
  ...['--data', at('faces'), '--out', at(out), '--threads', '2', '--augment', 'mirror,affine,colour,erase'],
  ...['--size', '32', '--batch', `${BATCH}`, '--embedding', '32', '--margin', '0.2', '--scale', '16'],
  ...['--epochs', `${epochs}`, '--log-every', '1', '--checkpoint-every', `${EVERY}`, '--ema', '0.9'],
];

const losses = (out: string) => readLog(at(out, 'log.jsonl')).flatMap(({ step, loss }) => [[step, loss]]);
const logLines = (out: string) => readFileSync(at(out, 'log.jsonl'), 'utf8').split('\n');
const lastStep = (out: string) => Math.max(0, ...readLog(at(out, 'log.jsonl')).map(({ step }) => step));

describe('wfr train --resume', () => {
  it('after kill -9 goes on from the last checkpoint and ends bit for bit where an uninterrupted run ends', async () => {
    expect(await train(...flags('whole'))).toMatchObject({ status: 0 });

    const { child, ended } = startTrain(...flags('parts'));
    while (lastStep('parts') < 2 * EVERY + 2 && child.exitCode === null) await sleep(5);
    child.kill('SIGKILL');
    expect((await ended).status).toBeNull();
    const reached = lastStep('parts');
    const before = logLines('parts');
    expect(reached).toBeLessThan(STEPS);
    // The lock of the process that was killed.
    expect(readdirSync(at('parts'))).toContain('lock');

    const others = await train(...flags('parts'), '--resume', '--augment', 'mirror');
    expect(others).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/another run: augmentation differs/),
    });

    const resumed = await train(...flags('parts'), '--resume', '--threads', '1');
    expect(resumed, resumed.stderr).toMatchObject({ status: 0 });
    const [, begun, of] = /resumed at step (\d+) of (\d+)/.exec(resumed.stderr)!.map(Number);
    expect(of).toBe(STEPS);
    expect(begun % EVERY).toBe(0);
    // A step is logged before its checkpoint is on the disk.
    expect(begun).toBeGreaterThanOrEqual(Math.max(EVERY, reached - EVERY));
    // With the times that its steps took: none of them was run again.
    expect(logLines('parts').slice(0, begun)).toEqual(before.slice(0, begun));
    expect(losses('parts')).toEqual(losses('whole'));
    const [whole, parts] = await Promise.all(
      ['whole', 'parts'].map((out) => openWeights([at(out, 'weights.safetensors')])),
    );
    expect(parts.state).toEqual(whole.state);
    expect(existsSync(at('parts', 'lock'))).toBe(false);
  }, 300_000);

  it('after a polite stop begins at that step; the status says that the run was interrupted', async () => {
    const { child, ended } = startTrain(...flags('stopped'));
    while (lastStep('stopped') < 2 && child.exitCode === null) await sleep(5);
    child.kill('SIGTERM');
    const { status, stderr } = await ended;
    expect(status, stderr).toBe(130);
    const step = Number(/stopped at step (\d+) of 24 \(go on with --resume\)/.exec(stderr)![1]);
    expect(existsSync(at('stopped', 'lock'))).toBe(false);
    const resumed = await train(...flags('stopped'), '--resume');
    expect(resumed, resumed.stderr).toMatchObject({ status: 0 });
    expect(resumed.stderr).toContain(`resumed at step ${step} of 24`);
  }, 300_000);

  it('of a finished run with more epochs goes on where the rate is constant, and keeps the best weights', async () => {
    const pairs = Array.from({ length: PEOPLE }, (_, p) => [
      `p${p}/0.png p${p}/1.png 1`,
      `p${p}/2.png p${(p + 5) % PEOPLE}/3.png 0`,
    ]);
    await writeFile(at('pairs.txt'), pairs.flat().join('\n'));
    const more = ['--schedule', 'constant', '--val', at('pairs.txt'), '--val-data', at('faces')];
    expect(await train(...flags('long', 1), ...more)).toMatchObject({ status: 0 });
    const best = readFileSync(at('long', 'best.safetensors'));
    // As if those weights had been right about every pair.
    const log = readFileSync(at('long', 'log.jsonl'), 'utf8');
    const flattered = log.replace(/"accuracy":[\d.]+,"std"/, '"accuracy":2,"std"');
    expect(flattered).not.toBe(log);
    writeFileSync(at('long', 'log.jsonl'), flattered);
    const on = await train(...flags('long', 2), ...more, '--resume');
    expect(on, on.stderr).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/resumed at step 6 of 12/),
    });
    expect(readLog(at('long', 'log.jsonl')).filter((r) => r.validation)).toHaveLength(2);
    expect(readFileSync(at('long', 'best.safetensors'))).toEqual(best);
    expect(readFileSync(at('long', 'weights.md'), 'utf8')).toContain('| highest | 200.00 % |');
  }, 300_000);
});
