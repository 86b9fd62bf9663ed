#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
const main = new URL('../dist/cli/main.js', import.meta.url);

if (major < 20 || (major === 20 && minor < 11)) {
  console.error(`wfr needs Node 20.11 or newer; this is ${process.version}.`);
  process.exitCode = 1;
} else if (!existsSync(fileURLToPath(main))) {
  console.error('wfr is not built in this checkout: run `npm ci` or `npm run build` first.');
  process.exitCode = 1;
} else {
  const { run } = await import(main.href);
  await run(process.argv.slice(2));
}
