import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { steadyProgress } from '../../src/cli/verification.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = new URL('../../src/cli/main.ts', import.meta.url).href;

/** Runs the command line from the sources. */
function wfr(...args: string[]): Promise<{ status: number; stderr: string }> {
  const script = `import { run } from ${JSON.stringify(main)}; await run(process.argv.slice(1));`;
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', script, '--', 'lfw', ...args],
      { cwd: root, env: { ...process.env, WFR_CACHE: folder } },
      (error, _stdout, stderr) => resolve({ status: error ? Number(error.code) : 0, stderr }),
    );
  });
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-lfw-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

it('needs pictures and pairs, in one way', async () => {
  expect(await wfr()).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('Give --data DIR and --pairs FILE'),
  });
  const both = await wfr('--bin', 'a.bin', '--data', '.', '--pairs', 'p');
  expect(both).toMatchObject({ status: 1, stderr: expect.stringContaining('not both') });
});

it('names the line of a malformed pair and of a missing picture', async () => {
  const list = path.join(folder, 'pairs.txt');
  await writeFile(list, '1\t1\nAnn\t1\nAnn\t1\tBea\t1\n');
  expect((await wfr('--data', folder, '--pairs', list)).stderr).toMatch(/pairs\.txt, line 2: .*2 fields/);
  await writeFile(list, '1\t1\nAnn\t1\t2\nAnn\t1\tBea\t1\n');
  const missing = await wfr('--data', folder, '--pairs', list);
  expect(missing.stderr).toMatch(/line 2: there is no .*Ann_0001\.jpg.*--skip-missing/);
  expect(missing.status).toBe(1);
});

it('refuses before the long part what cannot come to an end', async () => {
  const list = path.join(folder, 'two.txt');
  await writeFile(list, 'a.png b.png 1\na.png c.png 0\n');
  for (const name of ['a', 'b', 'c']) await writeFile(path.join(folder, `${name}.png`), '');
  const given = ['--data', folder, '--pairs', list];
  const [limit, few, folds, report, out] = await Promise.all([
    wfr(...given, '--calibrate', '0.1', '--limit', '4'),
    wfr(...given, '--calibrate', '0.1'),
    wfr(...given, '--folds', '3'),
    wfr(...given, '--report', path.join(list, 'r.html')),
    wfr(...given, '--out', folder),
  ]);
  expect(limit.stderr).toMatch(/needs every pair of the list: leave out --limit/);
  expect(few.stderr).toMatch(/1 pairs of different people are too few .*it takes 100 /);
  expect(folds.stderr).toMatch(/first 3 folds .*two\.txt has 2\./);
  expect(report.stderr).toMatch(/r\.html cannot be written/);
  expect(out.stderr).toMatch(/is a folder/);
  expect([limit, few, folds, report, out].map((r) => r.status)).toEqual([1, 1, 1, 1, 1]);
});

it('says that a pack is none', async () => {
  const file = path.join(folder, 'x.bin');
  await writeFile(file, 'hello');
  expect((await wfr('--bin', file)).stderr).toMatch(/x\.bin is no InsightFace pack/);
});

it('tells a log that it is alive', () => {
  const lines: string[] = [];
  const stream = { isTTY: false, write: (line: string) => lines.push(line) } as unknown as NodeJS.WriteStream;
  const bar = steadyProgress(3, 'pictures', stream, 0);
  bar.step();
  bar.step();
  bar.step();
  bar.stop();
  expect(lines).toEqual([
    expect.stringMatching(/^1 of 3 pictures, about \d+ s left\n$/),
    expect.stringMatching(/^2 of 3 pictures, about \d+ s left\n$/),
  ]);
});
