import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readLog } from '../../src/train/log.node.js';
import { Random } from '../../src/train/random.js';
import type { ValidationResult } from '../../src/train/validation.node.js';
import { openWeights } from '../../src/weights/save.node.js';
import { drawnFace, train } from './train_helpers.js';

const [PEOPLE, PICTURES] = [12, 4];

let folder: string;
const at = (...parts: string[]) => path.join(folder, ...parts);

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-train-cli-'));
  const rows: string[] = [];
  const teacher = new Float32Array(PEOPLE * PICTURES * 16);
  for (let person = 0; person < PEOPLE; person++) {
    await mkdir(at('faces', `p${person}`), { recursive: true });
    await mkdir(at('new', `p${person}`), { recursive: true });
    for (let k = 0; k < PICTURES + 2; k++) {
      const file = `p${person}/${k}.png`;
      await writeFile(at(k < PICTURES ? 'faces' : 'new', file), await drawnFace(person, k));
      if (k >= PICTURES) continue;
      // Every other picture has an identity; the teacher knows all.
      rows.push(`${file},${k % 2 === 0 ? `p${person}` : ''}`);
      const target = Random.of(7, person);
      for (let j = 0; j < 16; j++) teacher[(rows.length - 1) * 16 + j] = 3 + target.normal();
    }
  }
  await writeFile(at('faces', 'index.csv'), `file,identity\n${rows.join('\n')}\n`);
  const head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows.length}, 16), }`.padEnd(117);
  const magic = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]);
  await writeFile(
    at('teacher.npy'),
    Buffer.concat([magic, Buffer.from(`${head}\n`), Buffer.from(teacher.buffer)]),
  );
  const [a, b] = [PICTURES, PICTURES + 1];
  const pairs = Array.from({ length: PEOPLE }, (_, p) => [
    `p${p}/${a}.png p${p}/${b}.png 1`,
    `p${p}/${a}.png p${(p + 5) % PEOPLE}/${b}.png 0`,
  ]);
  await writeFile(at('pairs.txt'), pairs.flat().join('\n'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('wfr train', () => {
  const flags = () => [
    ...[
      '--data',
      at('faces'),
      '--distill',
      at('teacher.npy'),
      '--loss',
      'arcface',
      '--margin',
      '0.2',
      '--scale',
      '16',
    ],
    ...[
      '--size',
      '32',
      '--batch',
      '8',
      '--embedding',
      '32',
      '--epochs',
      '8',
      '--optimizer',
      'adamw',
      '--schedule',
      'one-cycle',
    ],
    ...[
      '--lr',
      '0.004',
      '--augment',
      'mirror,affine,colour,lowres,erase',
      '--log-every',
      '1',
      '--checkpoint-every',
      '20',
    ],
    ...['--val', at('pairs.txt'), '--val-data', at('new'), '--val-every', '8', '--out', at('out')],
  ];

  it('runs the recipe of the shipped weights on 48 drawn faces: the loss falls, new pictures are told apart', async () => {
    const first = await train(...flags());
    expect(first, first.stderr).toMatchObject({ status: 0 });
    expect(readdirSync(at('out')).sort()).toEqual(
      [
        'best.safetensors',
        'cache',
        'checkpoints',
        'log.jsonl',
        'report.html',
        'weights.md',
        'weights.safetensors',
      ].sort(),
    );
    const log = readLog(at('out', 'log.jsonl'));
    const losses = log.flatMap((r) => (typeof r.loss === 'number' ? [r.loss] : []));
    expect(losses).toHaveLength(48);
    const mean = (values: number[]) => values.reduce((s, v) => s + v, 0) / values.length;
    expect(mean(losses.slice(-6))).toBeLessThan(0.6 * mean(losses.slice(0, 6)));
    const last = log.findLast((r) => r.validation)!.validation as ValidationResult;
    expect(last.pairs).toBe(24);
    expect(last.auc).toBeGreaterThan(0.8);
    const weights = await openWeights([at('out', 'weights.safetensors')]);
    expect(weights.metadata).toMatchObject({
      net: 'mobilefacenet',
      input: { height: 32, width: 32 },
      data: 'faces',
    });
    expect([...weights.state.keys()].some((name) => name.startsWith('training.'))).toBe(false);
    const card = readFileSync(at('out', 'weights.md'), 'utf8');
    expect(card).toContain('| faces | 48 | 12 | teacher.npy |');
    expect(card).toContain('--schedule one-cycle');
    expect(readFileSync(at('out', 'report.html'), 'utf8')).not.toMatch(/<script|NaN/);

    const again = await train(...flags());
    expect(again).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/holds the checkpoints of a run\. Add --resume/),
    });
    const other = await train(...flags(), '--resume', '--seed', '9');
    expect(other).toMatchObject({ status: 1, stderr: expect.stringMatching(/another run: seed differ/) });
  }, 300_000);

  it('says what is wrong with its input', async () => {
    const out = ['--out', at('bad')];
    const cases: [string[], RegExp][] = [
      [[], /Give --data DIR/],
      [['--data', at('nowhere')], /nowhere: no such folder/],
      [['--data', at('faces'), '--augment', 'glitter'], /"glitter" is no augmentation/],
      [['--data', at('faces'), '--distill', at('pairs.txt')], /npy/],
      [['--data', at('faces'), '--batch', '64'], /batch of 64 needs as many pictures; there are 48/],
      [['--data', at('faces'), '--val', 'lfw'], /--val needs --val-data/],
      [['--data', at('faces'), '--net', 'vgg'], /Allowed choices are mobilefacenet/],
    ];
    for (const [args, message] of cases) {
      const { status, stderr } = await train(...args, ...out);
      expect(stderr).toMatch(message);
      expect(status).toBe(1);
    }
    expect(existsSync(at('bad', 'weights.safetensors'))).toBe(false);
  }, 240_000);
});
