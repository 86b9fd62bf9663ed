// npm's `prepare`: builds on `npm ci` and `npm install` in a checkout, on `npm pack` and for `npm i git+…`.
// Without development dependencies there is no compiler, and an install must not fail over that.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const compiler = existsSync(join(root, 'node_modules', 'typescript', 'lib', 'tsc.js'));
// scripts/setup.mjs sets the variable: the command that follows it builds anyway.
if (compiler && !process.env.WFR_NO_PREPARE) {
  const built = spawnSync(process.execPath, [join(root, 'scripts', 'build.mjs')], { stdio: 'inherit' });
  process.exit(built.status ?? 1);
}
