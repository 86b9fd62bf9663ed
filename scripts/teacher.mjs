// A teacher's embeddings for `wfr train --distill`: 128 numbers a face by dlib's face-recognition ResNet (Davis King, public
// domain), which the development dependency @vladmandic/face-api carries. Faces are aligned 112×112 pictures; the net's own
// 150×150 chip is cut from them by x′ = 1.491 x − 9.36, y′ = 1.491 y − 29.84 (bilinear, black outside). A descriptor is the mean
// of the picture's and its mirror image's, as the net gives it.
//
//   node scripts/teacher.mjs DATA OUT.npy [--limit N] [--wasm DIR]
//
// DATA is what `wfr train --data` takes; rows are in its order, float16; a picture that cannot be read is a row of NaN, which
// training leaves out. Build first (npm run build). TensorFlow.js's WASM backend is a hundred times faster than its plain one: it
// is used when the files of @tensorflow/tfjs-backend-wasm 4.22 are in DIR, or in node_modules
// (npm install --no-save @tensorflow/tfjs-backend-wasm@4.22.0).
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { positiveWhole } from './lib/flags.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { limit: { type: 'string' }, wasm: { type: 'string' } },
});
const [data, out] = positionals;
if (!data || !out) {
  console.error('node scripts/teacher.mjs DATA OUT.npy [--limit N] [--wasm DIR]');
  process.exit(1);
}
const limit = flags.limit === undefined ? undefined : positiveWhole('limit', flags.limit);
const { listPictures } = await import('../dist/train/data/listing.node.js');
const { decodePicture } = await import('../dist/media/decode.node.js');
const { writeAtomically } = await import('../dist/media/files.node.js');
const { halfBits } = await import('../dist/kernels/packing.js');

const CHIP = 150;
const DIMENSION = 128;

const listing = await listPictures(data).catch((/** @type {Error} */ error) => {
  console.error(error.message);
  process.exit(1);
});
const pictures = listing.pictures.slice(0, limit);
const net = await loadNet(flags.wasm ?? join(root, 'node_modules/@tensorflow/tfjs-backend-wasm/dist'));
const rows = new Uint16Array(pictures.length * DIMENSION);
const started = Date.now();
for (const [i, { file, name }] of pictures.entries()) {
  /** @type {Float32Array} */
  let descriptor = new Float32Array(DIMENSION).fill(Number.NaN);
  try {
    descriptor = await describe(await decodePicture(readFileSync(file)));
  } catch (error) {
    console.error(`${name}: ${/** @type {Error} */ (error).message}`);
  }
  rows.set(Uint16Array.from(descriptor, halfBits), i * DIMENSION);
  if ((i + 1) % 500 === 0) {
    const left = ((Date.now() - started) / (i + 1)) * (pictures.length - i - 1);
    console.error(`${i + 1} of ${pictures.length}, ${Math.ceil(left / 60_000)} min left`);
  }
}
await writeAtomically(out, npy(pictures.length, rows));

/** @param {{ width: number, height: number, data: Uint8Array | Uint8ClampedArray }} picture */
async function describe({ width, height, data: rgba }) {
  if (width !== 112 || height !== 112)
    throw new Error(`${width}×${height}: an aligned face of 112×112 is needed`);
  const chip = new Float32Array(CHIP * CHIP * 3);
  for (let y = 0; y < CHIP; y++) {
    const v = (y + 29.84) / 1.491;
    for (let x = 0; x < CHIP; x++) {
      const u = (x + 9.36) / 1.491;
      const [x0, y0] = [Math.floor(u), Math.floor(v)];
      for (const [px, py, weight] of [
        [x0, y0, (1 - u + x0) * (1 - v + y0)],
        [x0 + 1, y0, (u - x0) * (1 - v + y0)],
        [x0, y0 + 1, (1 - u + x0) * (v - y0)],
        [x0 + 1, y0 + 1, (u - x0) * (v - y0)],
      ]) {
        if (px >= 112 || py >= 112) continue;
        for (let k = 0; k < 3; k++) chip[(y * CHIP + x) * 3 + k] += weight * rgba[(py * 112 + px) * 4 + k];
      }
    }
  }
  const mirrored = new Float32Array(chip.length);
  for (let i = 0; i < CHIP * CHIP; i++) {
    const from = (i - (i % CHIP) + CHIP - 1 - (i % CHIP)) * 3;
    mirrored.set(chip.subarray(from, from + 3), i * 3);
  }
  const [a, b] = [await net(chip), await net(mirrored)];
  return a.map((value, k) => (value + b[k]) / 2);
}

/**
 * The net as a function of a chip. The package's bundle is for browsers: it is told what it needs to know, and is not shown
 * that this is Node while it loads.
 * @param {string} wasmFolder
 * @returns {Promise<(chip: Float32Array) => Promise<Float32Array>>}
 */
async function loadNet(wasmFolder) {
  const model = join(root, 'node_modules/@vladmandic/face-api/model/face_recognition_model');
  /** @type {any} */
  const world = globalThis;
  const { process: node, fetch: nodeFetch } = world;
  world.process = undefined;
  try {
    /** @type {any} */
    const api = await import('@vladmandic/face-api/dist/face-api.esm.js');
    const { tf } = api;
    /** @param {unknown} url */
    const local = async (url) => {
      const bytes = readFileSync(join(wasmFolder, String(url).split('/').pop() ?? ''));
      return new Response(bytes, { headers: { 'content-type': 'application/wasm' } });
    };
    tf.env().setPlatform('node', {
      fetch: local,
      now: () => performance.now(),
      encode: (/** @type {string} */ text) => new TextEncoder().encode(text),
      decode: (/** @type {Uint8Array} */ bytes) => new TextDecoder().decode(bytes),
      isTypedArray: (/** @type {unknown} */ a) => ArrayBuffer.isView(a) && !(a instanceof DataView),
      setTimeoutCustom: (/** @type {() => void} */ work) => setTimeout(work, 0),
    });
    const hasWasm = existsSync(join(wasmFolder, 'tfjs-backend-wasm-simd.wasm'));
    if (hasWasm) {
      world.fetch = local;
      world.self = world;
      world.location = { href: 'http://localhost/' };
      tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
      tf.setWasmPaths('http://localhost/');
    } else console.error(`no WASM backend in ${wasmFolder}: seconds a face instead of hundredths`);
    await tf.setBackend(hasWasm ? 'wasm' : 'cpu');
    await tf.ready();
    const [{ weights }] = JSON.parse(readFileSync(`${model}-weights_manifest.json`, 'utf8'));
    const bytes = Uint8Array.from(readFileSync(`${model}.bin`)).buffer;
    api.nets.faceRecognitionNet.loadFromWeightMap(tf.io.decodeWeights(bytes, weights));
    return async (chip) => {
      const y = tf.tidy(() => {
        const batch = tf.tensor4d(chip, [1, CHIP, CHIP, 3]);
        return api.nets.faceRecognitionNet.forwardInput({ toBatchTensor: () => batch });
      });
      const values = await y.data();
      y.dispose();
      return values;
    };
  } finally {
    world.process = node;
    world.fetch = nodeFetch;
  }
}

/** A NumPy file of float16. @param {number} count @param {Uint16Array} halves */
function npy(count, halves) {
  const dict = `{'descr': '<f2', 'fortran_order': False, 'shape': (${count}, ${DIMENSION}), }`;
  const header = `${dict.padEnd(117)}\n`;
  const head = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length, 0]);
  return Buffer.concat([head, Buffer.from(header), Buffer.from(halves.buffer)]);
}
