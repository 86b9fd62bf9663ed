/**
 * Boxes and five points of aligned faces, by O-Net alone: what `wfr train mtcnn --points` takes. Aligned sets hold faces
 * whose points are only on average those of the template; a net that is to find points needs those of the picture.
 *
 *   npx tsx scripts/label-points.ts --weights PATH --out FILE.csv [--every N] FOLDER...
 *
 * A folder holds pictures of one face each, aligned to the 112×112 template. O-Net looks at the window where such a face's
 * box lies, then at the box it found. With --every only one picture of N is taken. Rows: file (relative to
 * the list), box, score, points, as mtcnn_landmarks.csv of LFW has them.
 */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type Box, calibrate, toSquare } from '../src/face/boxes.js';
import { openGpu } from '../src/gpu/gpu.js';
import { Model } from '../src/graph/model.js';
import { readPicture } from '../src/media/decode.node.js';
import { expandInputs, writeAtomically } from '../src/media/files.node.js';
import type { Picture } from '../src/media/picture.js';
import { ONET_SIZE, onet } from '../src/nets/mtcnn.js';
import { cropTurned } from '../src/train/mtcnn/crop.js';
import { loadWeights } from '../src/weights/load.node.js';
import { positiveWhole } from './lib/flags.mjs';

const USAGE = 'npx tsx scripts/label-points.ts --weights PATH --out FILE.csv [--every N] FOLDER...';
const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    weights: { type: 'string' },
    out: { type: 'string' },
    every: { type: 'string', default: '1' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (flags.help) {
  console.log(USAGE);
  process.exit();
}
if (!flags.out || positionals.length === 0) {
  console.error(`Give --out FILE.csv and the folders of aligned faces: ${USAGE}`);
  process.exit(1);
}
const every = positiveWhole('every', flags.every);
const BATCH = 64;
/** Where the box of an aligned face usually lies, as a square. */
const START = { x1: 2, y1: 6, x2: 110, y2: 114 };
const LEAST_SCORE = 0.9;

const { files } = await expandInputs(positionals);
const chosen = files.filter((_, i) => i % every === 0);
const gpu = await openGpu();
const { state } = await loadWeights('detector', { path: flags.weights });
const net = await new Model(gpu, onet, state).at([BATCH, ONET_SIZE, ONET_SIZE, 3]);

interface Found {
  box: Box;
  score: number;
  points: number[];
}

async function look(pictures: readonly Picture[], squares: readonly Box[]): Promise<Found[]> {
  const x = new Float32Array(BATCH * ONET_SIZE * ONET_SIZE * 3);
  const crop = new Uint8Array(ONET_SIZE * ONET_SIZE * 3);
  for (const [i, p] of pictures.entries()) {
    const { x1, y1, x2, y2 } = squares[i];
    cropTurned(p, { centre: [(x1 + x2) / 2, (y1 + y2) / 2], side: x2 - x1, angle: 0 }, ONET_SIZE, crop);
    for (let k = 0; k < crop.length; k++) x[i * crop.length + k] = (crop[k] - 127.5) / 128;
  }
  const { prob, box, points } = await net.run({ x });
  return squares.map((s, i) => {
    const side = s.x2 - s.x1;
    const [d1, d2, d3, d4] = box.subarray(4 * i, 4 * i + 4);
    return {
      box: calibrate(s, [d1, d2, d3, d4], 0),
      score: prob[2 * i + 1],
      points: [0, 1, 2, 3, 4].flatMap((k) => [
        s.x1 + side * points[10 * i + k],
        s.y1 + side * points[10 * i + 5 + k],
      ]),
    };
  });
}

const rows = ['file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy'];
for (let at = 0; at < chosen.length; at += BATCH) {
  const part = chosen.slice(at, at + BATCH);
  const pictures = await Promise.all(part.map((f) => readPicture(f.path)));
  const scaled = pictures.map(({ width: w }) => {
    const s = w / 112;
    return { x1: START.x1 * s, y1: START.y1 * s, x2: START.x2 * s, y2: START.y2 * s };
  });
  const first = await look(pictures, scaled);
  const second = await look(
    pictures,
    first.map(({ box }) => toSquare(box)),
  );
  for (const [i, { box, score, points }] of second.entries()) {
    if (score < LEAST_SCORE) continue;
    const text = [box.x1, box.y1, box.x2, box.y2, score, ...points].map((v) => v.toFixed(2));
    rows.push(`${path.relative(path.dirname(path.resolve(flags.out)), part[i].path)},${text.join(',')}`);
  }
  if ((at / BATCH) % 20 === 19) console.error(`${at + BATCH} of ${chosen.length}`);
}
await writeAtomically(flags.out, `${rows.join('\n')}\n`);
gpu.close();
console.error(`${rows.length - 1} of ${chosen.length} faces in ${flags.out}`);
