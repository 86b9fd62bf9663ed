// Worker thread: reads pictures of a batch from their packs and augments them.
import { openSync, readSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { pad } from '../../kernels/tensor.js';
import { serveJobs } from '../prefetch_worker.node.js';
import { augment } from './augment.js';
import type { WorkerJob, WorkerSetup } from './packed_source.node.js';
import { augmentStream } from './source.js';

const { packs, size, seed, augmentation, normalisation } = workerData as WorkerSetup;
const files = packs.map(({ file }) => openSync(file, 'r'));

async function pixelsOf(pack: number, start: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const read = readSync(files[pack], bytes, at, length - at, start + at);
    if (read === 0) throw new Error(`${packs[pack].file} ends too early: was it replaced during the run?`);
    at += read;
  }
  if (packs[pack].encoding === 'raw') return bytes;
  // Loaded only where pictures are stored compressed.
  const { decodePicture } = await import('../../media/decode.node.js');
  const { toRgb } = await import('./pack.node.js');
  return toRgb(await decodePicture(bytes));
}

serveJobs<WorkerJob, Float32Array>(
  async ({ epoch, pictures, places }) => {
    const each = size * size * 3;
    const x = new Float32Array(pictures.length * each);
    for (const [i, picture] of pictures.entries()) {
      const [pack, start, length] = places.subarray(i * 3, i * 3 + 3);
      const source = await pixelsOf(pack, start, length);
      const stream = augmentStream(seed, epoch, picture);
      const out = x.subarray(i * each, (i + 1) * each);
      augment(source, packs[pack].side, out, size, augmentation, stream, normalisation);
    }
    // As the device wants them: the main thread has a step to look after.
    return pad(x, [pictures.length, size, size, 3]);
  },
  (x) => [x.buffer as ArrayBuffer],
);
