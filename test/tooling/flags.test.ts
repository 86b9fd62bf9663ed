// Numbers that the scripts are given: a wrong one is refused before anything is done.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');

it.each([
  ['limit', [join(root, 'scripts', 'teacher.mjs')]],
  ['every', ['--import', 'tsx', join(root, 'scripts', 'label-points.ts'), '--out', 'out']],
] as const)(
  '--%s must be a positive whole number',
  (flag, script) => {
    const folder = mkdtempSync(join(tmpdir(), 'wfr-flags-'));
    try {
      for (const text of ['abc', '0', '1.5', '']) {
        const args = [...script, folder, join(folder, 'out'), `--${flag}=${text}`];
        const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
        expect(stderr).toBe(`--${flag} ${text}: give a whole number of at least 1.\n`);
        expect(status).toBe(1);
      }
      expect(existsSync(join(folder, 'out'))).toBe(false);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  120_000,
);
