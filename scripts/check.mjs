// The checks that are no tests: types of everything, format and lint, import directions and circles, what publint says
// of the package, and what a page has to download. They run side by side and every complaint is shown; the status says
// if any failed.
//
//   node scripts/check.mjs [types] [lint] [imports] [package] [size]     (all by default)
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** @param {string[]} path */
const tool = (...path) => join(root, 'node_modules', ...path);

/** @type {Record<string, string[]>} */
const checks = {
  types: [tool('typescript', 'lib', 'tsc.js'), '-p', join(root, 'test', 'tsconfig.json')],
  lint: [tool('@biomejs', 'biome', 'bin', 'biome'), 'check', '--error-on-warnings', '.'],
  imports: [
    tool('dependency-cruiser', 'bin', 'dependency-cruise.mjs'),
    '--config',
    '.dependency-cruiser.cjs',
    'src',
  ],
  package: [tool('publint', 'src', 'cli.js'), '--strict'],
  size: [join(root, 'scripts', 'size.mjs')],
};

const wanted = process.argv.slice(2);
for (const name of wanted) {
  if (!checks[name]) {
    console.error(`There is no check "${name}": choose from ${Object.keys(checks).join(', ')}.`);
    process.exit(1);
  }
}

/** @param {string} name @returns {Promise<boolean>} */
function run(name) {
  return new Promise((resolve) => {
    const started = Date.now();
    const child = spawn(process.execPath, checks[name], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.on('error', (error) => (output += error.message));
    child.on('close', (status) => {
      const seconds = ((Date.now() - started) / 1000).toFixed(1);
      console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`);
      if (status !== 0) console.log(output.trimEnd());
      resolve(status === 0);
    });
  });
}

const results = await Promise.all((wanted.length > 0 ? wanted : Object.keys(checks)).map(run));
process.exit(results.every(Boolean) ? 0 : 1);
