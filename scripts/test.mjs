// `npm test`: everything that has to hold before a change lands. A failed check does not hide the tests'
// outcome, and the other way round; the status is that of all of them together. Arguments go to vitest.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const report = process.env.WFR_TEST_REPORT ?? join(root, 'node_modules', '.cache', 'wfr', 'vitest.json');
mkdirSync(dirname(report), { recursive: true });
rmSync(report, { force: true });

/** @param {string[]} args */
function node(...args) {
  const env = { WFR_TEST_BROWSER: '1', ...process.env };
  const result = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env,
  });
  if (result.error) console.error(result.error.message);
  return result.status === 0;
}

if (!node(join(root, 'scripts', 'build.mjs'))) {
  console.error('\nThe build failed, so nothing was tested.');
  process.exit(1);
}
const checked = node(join(root, 'scripts', 'check.mjs'));
const tested = node(
  join(root, 'node_modules', 'vitest', 'vitest.mjs'),
  'run',
  '--reporter=./test/skips.reporter.ts',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
);
if (!checked) console.error('\nThe checks above failed: see the lines that begin with FAILED.');
process.exit(checked && tested ? 0 : 1);
