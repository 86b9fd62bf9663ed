// Builds the demo pages into demo/out, with the weights that are at hand, and with --serve serves them.
//
//   node scripts/demo-web.mjs [--serve] [--port 8080] [--no-weights]
//
// Weights are looked up as the command line does it (WFR_WEIGHTS, the cache of `wfr weights pull`, the project's
// own), written as safetensors and listed with their checksums in weights/index.json. Where there are none, the
// pages ask for a file.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, preview } from 'vite';
import { WfrError } from '../dist/index.js';
import { loadWeights, saveWeights } from '../dist/index.node.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const demo = join(root, 'demo');
const out = join(demo, 'out');
const args = process.argv.slice(2);

// A checkout that lies beside shared data uses the public weights there.
const shared = join(root, '..', 'shared', 'data', 'weights');
if (!process.env.WFR_WEIGHTS && existsSync(shared)) process.env.WFR_WEIGHTS = shared;

const configFile = join(demo, 'vite.config.ts');
await build({ configFile, logLevel: 'warn' });

const folder = join(out, 'weights');
await mkdir(folder, { recursive: true });
const index = [];
for (const role of args.includes('--no-weights') ? [] : /** @type {const} */ (['detector', 'recogniser'])) {
  try {
    const weights = await loadWeights(role);
    const file = join(folder, `${role}.safetensors`);
    await saveWeights(file, weights);
    const bytes = await readFile(file);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const url = `weights/${role}.safetensors`;
    index.push({
      role,
      title: weights.metadata.title ?? weights.metadata.net,
      files: [{ url, sha256, bytes: bytes.length }],
    });
  } catch (error) {
    if (!(error instanceof WfrError)) throw error;
    console.log(`No ${role} weights: the pages will ask for a file. (${error.message})`);
  }
}
await writeFile(join(folder, 'index.json'), JSON.stringify(index));
console.log(`The pages are in ${relative(process.cwd(), out) || out}.`);

if (args.includes('--serve')) {
  const port = Number(args[args.indexOf('--port') + 1]);
  const server = await preview({
    configFile,
    preview: { port: args.includes('--port') ? port : 8080, host: 'localhost' },
  });
  server.printUrls();
  console.log('Open it in a browser with WebGPU. Ctrl+C ends it.');
}
