// Packs what a machine without Node and without a network needs to run wfr on its graphics card: Node itself, Dawn's
// binding, the build, the benches or the tests, and the Vulkan loader if this machine has one. One archive, unpacked with tar.
//
//   node scripts/pack-offline.mjs [--for bench|tests] [--out wfr-offline.tar.gz] [--data FILE ...]
//
// Made on the same kind of system (operating system, processor) as the machine it is for. --data adds files under data/: for
// training, with `--for bench`, a pack of pictures (`wfr train --pack compressed --cache DIR` makes one) and a teacher's
// .npy. There:
//
//   tar -xf wfr-offline.tar.gz && wfr-offline/run doctor           does the card answer?
//   wfr-offline/run tests                                          every kernel and gradient against its references
//   wfr-offline/run bench --only mobilefacenet,iresnet50           forward, beside the card's peak
//   wfr-offline/run train-bench --net mobilefacenet,iresnet50 --batch 32,64 --memory 40
//   wfr-offline/run conv-grad                                      gradients of convolutions one by one
//   wfr-offline/run gemm --size 1024,4096                          matrix products
//   wfr-offline/run torch                                          the same nets in PyTorch, where python3 has it
//   wfr-offline/run wfr train --data wfr-offline/data/faces.pack … the command line
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { transformSync } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    for: { type: 'string', default: 'bench' },
    out: { type: 'string', default: 'wfr-offline.tar.gz' },
    data: { type: 'string', multiple: true, default: [] },
  },
});

/** Packages beside those that wfr itself needs, and the folders of the project that go along as they are. */
const PURPOSES = {
  bench: { packages: [], folders: ['dist', 'bin', 'weights'] },
  tests: {
    packages: ['vitest', '@tensorflow/tfjs-core', '@tensorflow/tfjs-backend-cpu'],
    folders: ['dist', 'bin', 'weights', 'src', 'test'],
  },
};
const purpose = PURPOSES[/** @type {keyof typeof PURPOSES} */ (values.for)];
if (!purpose) fail(`--for ${values.for}: choose one of ${Object.keys(PURPOSES).join(', ')}.`);
for (const file of values.data) if (!existsSync(file)) fail(`--data ${file}: there is no such file.`);
if (!existsSync(join(root, 'dist', 'index.js'))) fail('There is no build: run `npm run build` first.');

/** Fonts draw names on pictures; nothing that runs on such a machine does. */
const LEFT_OUT = /^(@fontsource|dejavu-fonts)/;

/** What of the tests needs no picture, network or browser. */
const TESTS = `import { defineConfig } from 'vitest/config';
export default defineConfig({
  test: {
    include: ['test/{gpu,graph,kernels,nets}/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 4,
    testTimeout: 180_000,
  },
});
`;

/** The loader that came along is used only where the system has none. */
const RUN = `#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
PATH="$here/node/bin:$PATH"
export PATH
if ! ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 && [ -e "$here/lib/libvulkan.so.1" ]; then
  export LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
# Containers keep NVIDIA's driver in a place of their own.
nvidia=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
if [ -z "$VK_DRIVER_FILES" ] && [ -e "$nvidia" ]; then export VK_DRIVER_FILES="$nvidia"; fi
what=$1
[ $# -gt 0 ] && shift
case "$what" in
  wfr) exec node "$here/bin/wfr.js" "$@" ;;
  doctor) exec node "$here/bin/wfr.js" doctor "$@" ;;
  bench) exec node "$here/bench/run.js" "$@" ;;
  train-bench) exec node "$here/bench/train.js" "$@" ;;
  conv-grad) exec node "$here/bench/conv_grad.js" "$@" ;;
  gemm) exec node "$here/bench/gemm.js" "$@" ;;
  torch) exec python3 "$here/bench/peers/torch_gpu.py" "$@" ;;
  tests) cd "$here" && exec node node_modules/vitest/vitest.mjs run "$@" ;;
  *) echo "usage: $0 wfr|doctor|bench|train-bench|conv-grad|gemm|torch|tests [arguments]" >&2; exit 2 ;;
esac
`;

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}

/** The packages that `names` need, all together, as far as they are installed here. @param {string[]} names */
function closure(names) {
  const found = new Set();
  const queue = [...names];
  for (let name = queue.pop(); name; name = queue.pop()) {
    const file = join(root, 'node_modules', name, 'package.json');
    if (found.has(name) || !existsSync(file)) continue;
    found.add(name);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(readFileSync(file, 'utf8'));
    queue.push(...Object.keys(dependencies), ...Object.keys(optionalDependencies));
  }
  return [...found];
}

/** Source maps, and builds for other systems or for browsers, weigh most and run nowhere here. @param {string} path */
function isNeeded(path) {
  if (/\.(map|md|d\.ts|d\.mts|d\.cts)$/.test(path)) return false;
  const platform = /node_modules[\\/]webgpu[\\/]dist[\\/]([a-z0-9]+-[a-z0-9]+)$/.exec(path)?.[1];
  if (platform)
    return platform === `${process.platform}-${process.arch}` || platform === `${process.platform}-universal`;
  return !/tfjs-(core|backend-cpu)[\\/]dist[\\/].*(fesm|\.es2017|\.min\.js)/.test(path);
}

/** Where the dynamic linker finds Vulkan's loader, if it does. */
function vulkanLoader() {
  const { stdout } = spawnSync('ldconfig', ['-p'], { encoding: 'utf8' });
  return /libvulkan\.so\.1 .*=> (\S+)/.exec(stdout ?? '')?.[1];
}

const staging = mkdtempSync(join(tmpdir(), 'wfr-offline-'));
const target = join(staging, 'wfr-offline');
try {
  mkdirSync(join(target, 'node', 'bin'), { recursive: true });
  copyFileSync(realpathSync(process.execPath), join(target, 'node', 'bin', 'node'));
  for (const folder of purpose.folders)
    cpSync(join(root, folder), join(target, folder), { recursive: true, filter: (p) => !p.endsWith('.map') });
  copyFileSync(join(root, 'package.json'), join(target, 'package.json'));

  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const own = Object.keys(dependencies).filter((name) => !LEFT_OUT.test(name));
  for (const name of closure([...own, ...purpose.packages]))
    cpSync(join(root, 'node_modules', name), join(target, 'node_modules', name), {
      recursive: true,
      dereference: true,
      filter: isNeeded,
    });

  // The benches run against the build, so that no TypeScript is needed there.
  mkdirSync(join(target, 'bench'));
  for (const file of readdirSync(join(root, 'bench')).filter((f) => f.endsWith('.ts'))) {
    const source = readFileSync(join(root, 'bench', file), 'utf8').replaceAll("'../src/", "'../dist/");
    const { code } = transformSync(source, { loader: 'ts', format: 'esm', target: 'node20' });
    writeFileSync(join(target, 'bench', file.replace(/\.ts$/, '.js')), code);
  }
  mkdirSync(join(target, 'bench', 'peers'));
  for (const file of readdirSync(join(root, 'bench', 'peers')).filter((f) => /\.([mc]js|py)$/.test(f)))
    copyFileSync(join(root, 'bench', 'peers', file), join(target, 'bench', 'peers', file));
  if (values.for === 'tests') {
    writeFileSync(join(target, 'vitest.config.mjs'), TESTS);
    copyFileSync(join(root, 'tsconfig.json'), join(target, 'tsconfig.json'));
  }

  const loader = vulkanLoader();
  if (loader) {
    mkdirSync(join(target, 'lib'));
    copyFileSync(realpathSync(loader), join(target, 'lib', 'libvulkan.so.1'));
  } else console.error('No Vulkan loader was found here: the other machine has to have one.');
  for (const file of values.data) {
    mkdirSync(join(target, 'data'), { recursive: true });
    copyFileSync(file, join(target, 'data', basename(file)));
  }
  writeFileSync(join(target, 'run'), RUN);
  chmodSync(join(target, 'run'), 0o755);

  // tar chooses how to compress by the name's ending, so the temporary name keeps it.
  const out = resolve(values.out);
  const part = join(dirname(out), `.part-${basename(out)}`);
  const { status } = spawnSync('tar', ['-caf', part, '-C', staging, 'wfr-offline'], { stdio: 'inherit' });
  if (status !== 0) {
    rmSync(part, { force: true });
    throw new Error(`tar could not write ${out}.`);
  }
  renameSync(part, out);
  console.log(`${out}: ${(statSync(out).size / 2 ** 20).toFixed(1)} MiB`);
} finally {
  rmSync(staging, { recursive: true, force: true });
}
