// What `wfr train` refuses and reports, in this process; the net is small and a run has one step.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/cli/main.js';
import { bestOf } from '../../src/cli/train/run.js';
import { readLog } from '../../src/train/log.node.js';
import { NETS } from '../../src/train/mtcnn/recipe.node.js';
import { STAGES } from '../../src/train/mtcnn/stage.js';
import type { ValidationResult } from '../../src/train/validation.node.js';
import { saveWeights } from '../../src/weights/save.node.js';
import { complained, inDir, inTemporaryFolder, put, wfr } from './helpers.js';

inTemporaryFolder();

/** Two people with two pictures each, which need no aligning. */
async function putPeople(names: readonly string[] = ['ann', 'bob']): Promise<void> {
  for (const [i, name] of names.entries())
    for (const k of [0, 1]) await put(`people/${name}/${k}.png`, 112, 112, 1 + i + 0.1 * k);
}

/** Later arguments win over these; only --data would be added to. */
const usual = (args: readonly string[]) => [
  ...['train', ...(args.includes('--data') ? [] : ['--data', inDir('people')])],
  ...['--out', inDir('out'), '--size', '32', '--embedding', '16'],
  ...['--batch', '4', '--epochs', '1', '--threads', '1', '--pack', 'raw', '--warmup', '0'],
];

/** Runs it, and gives exit status and standard error. */
async function train(...args: string[]): Promise<{ status: number; stderr: string }> {
  complained.length = 0;
  process.exitCode = undefined;
  await wfr(...usual(args), ...args);
  return { status: Number(process.exitCode ?? 0), stderr: complained.join('\n') };
}

async function refused(message: RegExp, ...args: string[]): Promise<void> {
  const { status, stderr } = await train(...args);
  expect(stderr).toMatch(message);
  expect(stderr).not.toMatch(/unexpected error/);
  expect(status).toBe(1);
}

describe('a place that cannot be written to', () => {
  it('is refused: a file, and what would lie below one', async () => {
    await putPeople();
    writeFileSync(inDir('file'), 'mine');
    await refused(/file is a file: name a folder/, '--out', inDir('file'));
    await refused(/deep cannot be made: .*file is a file/, '--out', inDir('file', 'deep'));
    await refused(/deep cannot be made: .*file is a file/, '--cache', inDir('file', 'deep'));
    complained.length = 0;
    await run(['train', 'mtcnn', '--data', inDir('people'), '--out', inDir('file')]);
    expect(complained.join('\n')).toMatch(/file is a file: name a folder/);
    expect(readFileSync(inDir('file'), 'utf8')).toBe('mine');
  });

  it.runIf(existsSync('/proc/self'))('is refused where folders can never be made', async () => {
    await putPeople();
    await refused(/\/proc\/nope\/x cannot be written to/, '--out', '/proc/nope/x');
  });
});

describe('a run that is refused leaves no folder behind', () => {
  const out = () => inDir('new', 'deep');

  it.each([
    ['no data', () => ['--data', inDir('people'), '--data', inDir('nowhere')], /nowhere: no such folder/],
    ['no teacher', () => ['--distill', inDir('t.npy')], /t\.npy: no such file of a teacher/],
    ['no teacher at all', () => ['--distill', '-'], /--distill - stands for a data set without a teacher/],
    ['no pairs', () => ['--val', inDir('p.txt'), '--val-data', inDir('people')], /p\.txt: no such list/],
    [
      'nothing to measure by',
      () => {
        writeFileSync(inDir('same.txt'), 'ann/0.png ann/1.png 1\nbob/0.png bob/1.png 1');
        return ['--val', inDir('same.txt'), '--val-data', inDir('people')];
      },
      /same\.txt: the 2 pairs .* are all of one person/,
    ],
    ['no weights', () => ['--init', inDir('w.safetensors')], /w\.safetensors: .*no such file/],
    ['another augmentation', () => ['--augment', 'glitter'], /"glitter" is no augmentation/],
  ] as const)('%s', async (_, args, message) => {
    await putPeople();
    await refused(message, '--out', out(), ...args());
    expect(existsSync(inDir('new'))).toBe(false);
  });

  it('nor do pictures of which none can be used', async () => {
    mkdirSync(inDir('people', 'ann'), { recursive: true });
    writeFileSync(inDir('people/ann/0.png'), 'no picture');
    await refused(/none of its pictures can be used/, '--out', out());
    expect(existsSync(inDir('new'))).toBe(false);
  });
});

describe('people', () => {
  it('two are needed', async () => {
    await putPeople(['ann']);
    await refused(/shows one person: at least two people are needed/, '--batch', '2');
  });

  it('may be links to folders', async () => {
    await putPeople();
    mkdirSync(inDir('linked'));
    for (const name of ['ann', 'bob']) symlinkSync(inDir('people', name), inDir('linked', name), 'junction');
    const { status, stderr } = await train('--data', inDir('linked'));
    expect(stderr).toMatch(/4 pictures, 2 identities/);
    expect(status).toBe(0);
  }, 300_000);
});

describe('memory', () => {
  it('that holds not even two pictures is told so, more holds as many as are named', async () => {
    await putPeople();
    await refused(
      /Not even a batch of 2, the least that batch norm can learn from, fits into 1\.0 MB: it needs [\d.]+ MB/,
      ...['--memory', '0.001'],
    );
    await refused(
      /A batch of 4 needs \d+ MB, more than .* The largest that fits is [23];/,
      '--memory',
      await between(),
    );
  }, 300_000);

  /** Gigabytes that a batch of two fits into and a batch of four does not. */
  async function between(): Promise<string> {
    const needs = async (batch: string) => {
      const { stderr } = await train('--batch', batch, '--memory', '0.001');
      return Number(/a step: ([\d.]+) MB/.exec(stderr)![1]);
    };
    return `${((await needs('2')) + (await needs('4'))) / 2000}`;
  }
});

describe('weights to begin with', () => {
  it('of another net are refused, saying what they are and what is needed', async () => {
    await putPeople();
    const state = new Map([['conv1.weight', { shape: [64, 3, 3, 3], data: new Float32Array(64 * 27) }]]);
    await saveWeights(inDir('other.safetensors'), {
      state,
      metadata: { net: 'iresnet', title: 'my iResNet' },
    });
    await refused(
      /other\.safetensors \(my iResNet\) fits nothing of .*: the net needs stem\.conv\.weight, .* there are conv1\.weight/,
      ...['--init', inDir('other.safetensors')],
    );
  });

  it('of other people and another size go on', async () => {
    await putPeople();
    expect(await train()).toMatchObject({ status: 0 });
    await putPeople(['ann', 'bob', 'cid']);
    const init = inDir('out', 'weights.safetensors');
    const on = await train('--init', init, '--size', '48', '--out', inDir('finer'));
    expect(on, on.stderr).toMatchObject({ status: 0 });
    expect(on.stderr).not.toMatch(/begun at random/);
  }, 300_000);
});

describe('a detector', () => {
  const mtcnn = async (...args: string[]): Promise<string> => {
    mkdirSync(inDir('boxes'), { recursive: true });
    const pictures = ['a.png', 'b.png'].map((file) => JSON.stringify({ file, faces: [[1, 2, 30, 30]] }));
    writeFileSync(inDir('boxes', 'annotations.jsonl'), pictures.join('\n'));
    complained.length = 0;
    process.exitCode = undefined;
    await run(['train', 'mtcnn', '--data', inDir('boxes'), '--out', inDir('detector'), ...args]);
    expect(process.exitCode).toBe(1);
    expect(existsSync(inDir('detector', 'mtcnn.safetensors'))).toBe(false);
    return complained.join('\n');
  };

  it('is begun with, or masks by, weights of a detector: the message names the option', async () => {
    const state = new Map([['conv1.weight', { shape: [1], data: new Float32Array(1) }]]);
    const other = inDir('other.safetensors');
    await saveWeights(other, { state, metadata: { net: 'iresnet' } });
    for (const option of ['--mask', '--init']) {
      expect(await mtcnn(option, inDir('none'))).toMatch(
        new RegExp(`${option} names .*none, which does not exist`),
      );
      const message = await mtcnn(option, other);
      expect(message).toMatch(
        new RegExp(`${option} names .*other.safetensors, which holds no detector weights: .*mtcnn`),
      );
      expect(message).not.toMatch(/--weights/);
    }
  });

  it('needs pictures that can be read', async () => {
    expect(await mtcnn()).toMatch(/left out: .*a\.png.*pnet cannot be trained, .*2 of 2 pictures/s);
  });

  it('is trained for as many steps as the message says by which wrong ones are refused', async () => {
    const steps = /O-Net: ([\d,]+)\./.exec(await mtcnn('--steps', '1,2'))![1];
    expect(steps.split(',').map(Number)).toEqual(NETS.map((net) => STAGES[net].steps));
  });
});

describe('names to freeze', () => {
  it('must begin the name of a weight', async () => {
    await putPeople();
    await refused(/begin with "stm"\. The net has stem, dw, blocks\.0–14, head/, '--freeze', 'stm');
    await refused(/--freeze stem,: an empty name/, '--freeze', 'stem,');
  });
});

describe('pictures that cannot be used', () => {
  it('are reported by every run, kept in the report, and the status tells', async () => {
    await putPeople();
    writeFileSync(inDir('people/bob/broken.png'), 'no picture');
    const cache = ['--cache', inDir('cache')];
    const first = await train(...cache);
    const second = await train(...cache, '--out', inDir('again'));
    const [pack] = readdirSync(inDir('cache'));
    const third = await train('--data', inDir('cache', pack), '--out', inDir('packed'));
    for (const { status, stderr } of [first, second, third]) {
      expect(stderr).toMatch(/1 of 5 pictures cannot be used and are left out/);
      expect(stderr.match(/bob.broken\.png: not a picture/g)).toHaveLength(1);
      expect(stderr).toMatch(/done: /);
      expect(status).toBe(1);
    }
    expect(readFileSync(inDir('again', 'report.html'), 'utf8')).toMatch(/bob.broken\.png: not a picture/);
  }, 300_000);

  it('are those too that are no picture by their size or kind', async () => {
    await putPeople();
    writeFileSync(inDir('people/bob/huge.jpg'), '');
    truncateSync(inDir('people/bob/huge.jpg'), 3 * 2 ** 30);
    if (process.platform !== 'win32') execFileSync('mkfifo', [inDir('people/ann/pipe.jpg')]);
    const { status, stderr } = await train();
    expect(stderr).toMatch(/huge\.jpg: is larger than 512 MiB/);
    if (process.platform !== 'win32') expect(stderr).toMatch(/pipe\.jpg: is no file but a pipe/);
    expect(stderr).toMatch(/done: /);
    expect(status).toBe(1);
  }, 300_000);

  it('of the pairs to validate on count as different, and are reported', async () => {
    await putPeople();
    writeFileSync(inDir('people/bob/9.png'), 'no picture');
    const pairs = [
      'ann/0.png ann/1.png 1',
      'ann/0.png bob/9.png 0',
      'bob/0.png bob/1.png 1',
      'ann/1.png bob/0.png 0',
    ];
    writeFileSync(inDir('pairs.txt'), [...pairs, ...pairs].join('\n'));
    await put('some/ann/0.png', 112, 112, 1);
    await put('some/bob/0.png', 112, 112, 2);
    const val = ['--val', inDir('pairs.txt'), '--val-data', inDir('people')];
    const { status, stderr } = await train('--data', inDir('some'), '--batch', '2', ...val);
    expect(stderr).toMatch(/bob\/9\.png: not a picture.*; its pairs count as different/);
    expect(stderr).toMatch(/epoch 1: .* % of 8 pairs/);
    expect(status).toBe(0);
  }, 300_000);
});

describe('--resume', () => {
  it('is refused where no checkpoint is whole, and leaves them', async () => {
    await putPeople();
    mkdirSync(inDir('out', 'checkpoints'), { recursive: true });
    const names = [1, 2].map((n) => `checkpoint-00000000${n}.wfr`);
    for (const name of names) writeFileSync(inDir('out', 'checkpoints', name), 'garbage');
    await refused(
      /None of the checkpoints in .* is whole.*\n.*2\.wfr: not a checkpoint.*\n.*1\.wfr: .*\nTo begin anew, give another --out/,
      '--resume',
    );
    expect(readdirSync(inDir('out', 'checkpoints'))).toEqual(names);
  }, 300_000);
});

describe('accuracy on pairs', () => {
  it('is measured by a resumed run where the last one ended in the middle of that', async () => {
    await putPeople();
    const same = ['ann', 'bob'].map((name) => `${name}/0.png ${name}/1.png 1`);
    const lists = [0, 1].map((k) => {
      const file = inDir(`pairs${k}.txt`);
      writeFileSync(file, [...same, `ann/0.png bob/${k}.png 0`, 'ann/1.png bob/1.png 0'].join('\n'));
      return ['--val', file, '--val-data', inDir('people')];
    });
    const log = inDir('out', 'log.jsonl');
    const measured = () => readLog(log).flatMap(({ validation }) => (validation as ValidationResult) ?? []);
    expect(await train(...lists[0])).toMatchObject({ status: 0 });
    const [first] = measured();
    expect(await train(...lists[0], '--resume')).toMatchObject({ status: 0 });
    expect(measured()).toEqual([first]);
    const lines = readFileSync(log, 'utf8').split('\n');
    writeFileSync(log, lines.filter((line) => !line.includes('validation')).join('\n'));
    expect(await train(...lists[1], '--resume')).toMatchObject({ status: 0 });
    expect(measured()).toMatchObject([{ pairs: 4 }]);
    // As many pairs, but not the same.
    expect(measured()[0].list).not.toBe(first.list);
  }, 300_000);

  it('is highest among measurements on the same pairs, the last ones', () => {
    const result = (accuracy: number, list?: string, pairs = 9) =>
      ({ step: 1, validation: { accuracy, list, pairs } }) as const;
    const best = (...records: ReturnType<typeof result>[]) => bestOf({ records })?.accuracy;
    expect(best()).toBeUndefined();
    expect(best(result(0.9, 'a'), result(0.5, 'b'), result(0.6, 'b'), result(0.4, 'b'))).toBe(0.6);
    expect(best(result(0.9, 'a'), result(0.8, 'b'), result(0.7, 'a'))).toBe(0.7);
    expect(best(result(0.9), result(0.8, 'a'))).toBe(0.9);
    expect(best(result(0.9, undefined, 8), result(0.8, 'a'))).toBe(0.8);
  });
});

describe('one run a folder', () => {
  const lock = () => path.join(inDir('out'), 'lock');
  const putLock = (pid: number, host = hostname()) => {
    mkdirSync(inDir('out'), { recursive: true });
    writeFileSync(lock(), JSON.stringify({ pid, host }));
  };

  it('another that is alive keeps it, and its lock', async () => {
    await putPeople();
    putLock(process.ppid);
    await refused(new RegExp(`out is in use: process ${process.ppid} on .* is training there`));
    expect(existsSync(lock())).toBe(true);
    putLock(1, 'elsewhere');
    await refused(/process 1 on elsewhere is training there.*remove .*lock/);
  });

  it('what dead processes left half written is removed, what a live one writes is not', async () => {
    await putPeople();
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const old = new Date(Date.now() - 2 * 3_600_000);
    const leave = (file: string, isOld = false) => {
      mkdirSync(path.dirname(inDir(file)), { recursive: true });
      writeFileSync(inDir(file), 'half');
      if (isOld) utimesSync(inDir(file), old, old);
      return inDir(file);
    };
    const gone = [
      leave(`out/.${dead}.0123abcd.tmp`),
      leave(`out/weights.safetensors.${dead}.0123abcd.tmp`),
      leave(`out/cache/people-1.pack.${dead}.tmp`),
      leave(`shared/people-1.pack.${dead}.tmp`, true),
    ];
    const kept = [
      leave(`out/weights.safetensors.${process.ppid}.0123abcd.tmp`),
      leave(`out/notes.${dead}.tmp`),
      leave(`out/cache/people-1.pack.${process.ppid}.tmp`),
      // Another machine may be writing it.
      leave(`shared/people-2.pack.${dead}.tmp`),
      leave(`shared/people-3.pack.${process.ppid}.tmp`, true),
    ];
    await refused(/Not even a batch/, '--cache', inDir('shared'), '--memory', '0.001');
    expect(gone.filter(existsSync)).toEqual([]);
    expect(kept.filter((file) => !existsSync(file))).toEqual([]);
  });

  it('one that died does not, nor one whose lock is half written', async () => {
    await putPeople();
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    putLock(dead);
    expect(await train()).toMatchObject({ status: 0 });
    expect(existsSync(lock())).toBe(false);
    writeFileSync(lock(), '');
    expect(await train('--resume')).toMatchObject({ status: 0 });
  }, 300_000);
});

describe('--detect-anomaly', () => {
  it('names the first layer that is not finite, with its pictures', async () => {
    await putPeople();
    const wild = ['--lr', '1e12', '--clip', '0', '--epochs', '9'];
    await refused(
      /wfr: The first value that is not finite is in .+, at step \d \(pictures .*(ann|bob).\d\.png/,
      ...[...wild, '--detect-anomaly'],
    );
  }, 300_000);
});
