// LiteRT.js: XNNPACK in WebAssembly, two threads. Made for pages; what it looks for there is lent while it loads.
import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';

const THREADS = 2;

/** Indirect, so that type checks and bundlers do not need what is installed on demand. @param {string} name */
const load = (name) => import(name);

/** @type {Promise<any> | undefined} */
let started;

/** It reports errors and goes on, with outputs that nobody wrote. @type {string[]} */
const errors = [];
/** What it says otherwise of itself is not for the bench's standard output. @param {string} line */
const report = (line) => {
  if (line.startsWith('ERROR')) errors.push(line);
};
const throwReported = () => {
  if (errors.length > 0) throw new Error(errors.splice(0).join(' '));
};

async function start() {
  // Its threads need relaxed SIMD, which Node 20 has behind a flag and later versions always.
  if (process.versions.node.startsWith('20.')) setFlagsFromString('--experimental-wasm-relaxed-simd');
  const core = await load('@litertjs/core');
  const page = /** @type {any} */ (globalThis);
  /** @type {Record<string, unknown>} */
  const lent = {
    self: page,
    importScripts: () => {
      page.ModuleFactory = createRequire(import.meta.url)('./litert_runtime.cjs');
    },
    // So many workers are started at once; the caller's is the other thread. There is no `gpu`, which is not wanted here
    // and whose absence it warns of.
    navigator: { hardwareConcurrency: THREADS - 1 },
    console: { ...console, warn() {} },
    Module: { print: report, printErr: report },
  };
  const before = Object.keys(lent).map((name) => ({
    name,
    own: Object.getOwnPropertyDescriptor(page, name),
  }));
  try {
    for (const [name, value] of Object.entries(lent))
      Object.defineProperty(page, name, { value, configurable: true, writable: true });
    await core.loadLiteRt('', { threads: true });
  } finally {
    for (const { name, own } of before) {
      if (own) Object.defineProperty(page, name, own);
      else delete page[name];
    }
  }
  return core;
}

/**
 * @typedef {{ tflite: Uint8Array, shape: readonly number[] }} Net
 * @returns {Promise<(net: Net) => Promise<import('./engines.mjs').Session>>}
 */
export async function litert() {
  started ??= start();
  const { loadAndCompile, Tensor } = await started;
  return async (net) => {
    const model = await loadAndCompile(net.tflite, {
      accelerator: 'wasm',
      cpuOptions: { numThreads: THREADS },
    });
    throwReported();
    return {
      async run(data) {
        const x = new Tensor(data, [...net.shape]);
        const outputs = await model.run([x]);
        throwReported();
        const y = outputs[0].toTypedArray();
        for (const t of [x, ...outputs]) t.delete();
        return y;
      },
      close() {
        model.delete();
      },
    };
  };
}
