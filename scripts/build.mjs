// Builds src/ into dist/ (ESM + .d.ts) with tsc, incrementally, and removes what no source stands behind any
// more: a file left over from a renamed module would otherwise be packed and published. Then bundles the neutral
// entry into the one file that a page without a bundler loads.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const src = join(root, 'src');
const browserFile = join(dist, 'browser', 'wfr.js');

if (existsSync(dist)) {
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const stem = join(src, relative(dist, path).replace(/\.(d\.ts|js)$/, ''));
    if (path === browserFile) continue;
    if (entry.isFile() && /\.(d\.ts|js)$/.test(path) && !existsSync(`${stem}.ts`)) rmSync(path);
  }
}

const tsc = join(root, 'node_modules', 'typescript', 'lib', 'tsc.js');
if (!existsSync(tsc)) {
  console.error(
    'The TypeScript compiler is not installed: run `npm ci` (or `node scripts/setup.mjs`) first.',
  );
  process.exit(1);
}
const built = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.json')], { stdio: 'inherit' });
if (built.status !== 0) process.exit(built.status ?? 1);

// No minifier looks into a template: comments and indentation in the text of a kernel would be downloaded.
for (const entry of readdirSync(join(dist, 'kernels'), { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith('.js')) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  const text = readFileSync(path, 'utf8');
  const bare = text.replace(/^[ \t]*\/\/ .*\n/gm, '').replace(/^[ \t]+/gm, '');
  if (bare !== text) writeFileSync(path, bare);
}

const { build } = await import('esbuild');
await build({
  entryPoints: [join(dist, 'index.js')],
  outfile: browserFile,
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'browser',
  target: 'es2022',
  legalComments: 'inline',
  logLevel: 'warning',
});
