import { expect, it } from 'vitest';
import { commands } from '../../src/cli/commands.js';
import { run } from '../../src/cli/main.js';
import { complained, inDir, inTemporaryFolder, printed, wfrJson } from './helpers.js';

inTemporaryFolder();

it('weights list --used fails when weights are missing, with --json too', async () => {
  const { used } = await wfrJson('weights', 'list', '--used');
  expect(used.map((u: { problem?: string }) => u.problem)).toEqual([undefined, undefined]);
  expect(process.exitCode).toBeUndefined();
  for (const json of [[], ['--json']]) {
    process.exitCode = undefined;
    await run(['weights', 'list', '--used', ...json, '--weights', inDir('none')], commands);
    expect(process.exitCode).toBe(1);
  }
  expect(printed.at(-1)).toContain('"problem"');
});

it('weights inspect says what is wrong with a path, and where weights lie', async () => {
  for (const [file, what] of [
    [inDir('none.safetensors'), 'no such file'],
    [inDir('.'), 'a folder, not a file'],
  ]) {
    complained.length = 0;
    process.exitCode = undefined;
    await run(['weights', 'inspect', file], commands);
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toBe(
      `wfr: ${file}: ${what}. wfr weights list tells where weights in use lie.`,
    );
  }
});
