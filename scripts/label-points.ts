/**
 * Boxes and five points of aligned faces, found by a detector: what `wfr train mtcnn --points` takes. Aligned sets hold
 * faces whose points are only on average those of the template; O-Net needs those of the picture.
 *
 *   npx tsx scripts/label-points.ts --weights PATH --out FILE.csv [--every N] FOLDER...
 *
 * A folder holds pictures at most a folder deep, one face each, in the middle. With --every only one of N is taken.
 * Rows: file (relative to the list), box, score, points, as mtcnn_landmarks.csv of LFW has them.
 */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Mtcnn } from '../src/face/detector.js';
import { mainFace } from '../src/face/recognizer.js';
import { openGpu } from '../src/gpu/gpu.js';
import { readPicture } from '../src/media/decode.node.js';
import { expandInputs, writeAtomically } from '../src/media/files.node.js';
import type { Picture } from '../src/media/picture.js';
import { loadWeights } from '../src/weights/load.node.js';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { weights: { type: 'string' }, out: { type: 'string' }, every: { type: 'string', default: '1' } },
});
if (!flags.out || positionals.length === 0) {
  console.error('Give --out FILE.csv and the folders of aligned faces.');
  process.exit(1);
}
/** Room round the picture, so that the cascade can look at a window wider than the crop. */
const MARGIN = 20;
const { files } = await expandInputs(positionals);
const chosen = files.filter((_, i) => i % Number(flags.every) === 0);
const gpu = await openGpu();
const detector = Mtcnn.create(gpu, await loadWeights('detector', { path: flags.weights }));
const rows = ['file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy'];
for (const [i, { path: file }] of chosen.entries()) {
  const picture = widened(await readPicture(file));
  const minFace = Math.round(picture.height * 0.45);
  const faces = await detector.detect(picture, { minFace });
  const { width, height } = picture;
  const [cx, cy] = [width / 2, height / 2];
  const face = mainFace(
    faces.filter(({ box: b }) => b.x1 < cx && cx < b.x2 && b.y1 < cy && cy < b.y2),
    width,
    height,
  );
  if (face) {
    const { x1, y1, x2, y2 } = face.box;
    const numbers = [x1, y1, x2, y2].map((v) => v - MARGIN);
    const points = face.landmarks.flat().map((v) => v - MARGIN);
    const text = [...numbers, face.score, ...points].map((v) => v.toFixed(2));
    rows.push(`${path.relative(path.dirname(path.resolve(flags.out)), file)},${text.join(',')}`);
  }
  if ((i + 1) % 1000 === 0) {
    console.error(`${i + 1} of ${chosen.length}, ${rows.length - 1} found`);
    await writeAtomically(flags.out, `${rows.join('\n')}\n`);
  }
}
await writeAtomically(flags.out, `${rows.join('\n')}\n`);
await detector.destroy();
gpu.close();
console.error(`${rows.length - 1} of ${chosen.length} faces in ${flags.out}`);

/** The picture with its border repeated outwards. */
function widened({ width, height, data }: Picture): Picture {
  const [w, h] = [width + 2 * MARGIN, height + 2 * MARGIN];
  const source = new Uint32Array(data.buffer.slice(data.byteOffset, data.byteOffset + width * height * 4));
  const out = new Uint32Array(w * h);
  for (let y = 0; y < h; y++) {
    const from = Math.min(height - 1, Math.max(0, y - MARGIN)) * width;
    for (let x = 0; x < w; x++) out[y * w + x] = source[from + Math.min(width - 1, Math.max(0, x - MARGIN))];
  }
  return { width: w, height: h, data: new Uint8Array(out.buffer) };
}
