/**
 * How well the detector finds the faces of Labeled Faces in the Wild: the share of pictures in which a face covers the
 * centre, and how far its five points lie from those of an independent implementation with the same weights.
 *
 *   npx tsx scripts/eval-detector.ts [--skip N] [--limit N] [--min-face 40] [--fresh | --cached-only] [--json]
 *
 * The pictures and mtcnn_landmarks.csv are looked for in WFR_LFW, else ../shared/data/lfw. Detections are kept where
 * `wfr lfw` keeps them, so that either run spares the other the detecting; --fresh detects anew, --cached-only
 * measures what is there already.
 */
import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { program } from 'commander';
import { integerIn, numberIn } from '../src/cli/options.js';
import { Mtcnn } from '../src/face/detector.js';
import { mainFace } from '../src/face/recognizer.js';
import {
  type Detection,
  DetectionStore,
  detectionsFile,
  pictureHash,
} from '../src/face/verification/store.node.js';
import { type Gpu, openGpu } from '../src/gpu/gpu.js';
import { decodePicture } from '../src/media/decode.node.js';
import { loadWeights } from '../src/weights/load.node.js';

interface Flags {
  skip: number;
  limit?: number;
  minFace: number;
  fresh?: boolean;
  cachedOnly?: boolean;
  json?: boolean;
}
const count = integerIn(0, 1_000_000);
const flags: Flags = program
  .option('--skip <n>', 'leave out the first', count, 0)
  .option('--limit <n>', 'look at so many at most', count)
  .option('--min-face <px>', 'smallest face that is looked for', numberIn(1, 10_000), 40)
  .option('--fresh', 'detect anew')
  .option('--cached-only', 'measure what earlier runs detected')
  .option('--json')
  .parse()
  .opts();
const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const shared = path.join(root, '..', 'shared', 'data');
const lfw = process.env.WFR_LFW ?? path.join(shared, 'lfw');
if (!existsSync(path.join(lfw, 'mtcnn_landmarks.csv'))) {
  console.error(
    `${lfw} holds no mtcnn_landmarks.csv: set WFR_LFW to a folder with it, pairs.txt and images/.`,
  );
  process.exit(1);
}
if (!process.env.WFR_WEIGHTS && existsSync(path.join(shared, 'weights')))
  process.env.WFR_WEIGHTS = path.join(shared, 'weights');

/** The pictures that pairs.txt uses, each once, in its order. */
function picturesOfPairs(): string[] {
  const files = new Set<string>();
  const file = (name: string, n: string) => files.add(`${name}/${name}_${n.padStart(4, '0')}.jpg`);
  for (const line of readFileSync(path.join(lfw, 'pairs.txt'), 'utf8').split('\n').slice(1)) {
    const [a, b, c, d] = line.trim().split('\t');
    if (d) file(c, d);
    if (c) file(a, b);
    if (c && !d) file(a, c);
  }
  return [...files];
}

/** Five points by file. */
function independentPoints(): Map<string, number[][]> {
  const points = new Map<string, number[][]>();
  for (const line of readFileSync(path.join(lfw, 'mtcnn_landmarks.csv'), 'utf8').split('\n').slice(1)) {
    const [file, ...rest] = line.split(',');
    const n = rest.slice(5).map(Number);
    if (n.length === 10)
      points.set(
        file,
        [0, 2, 4, 6, 8].map((i) => n.slice(i, i + 2)),
      );
  }
  return points;
}

const distance = ([ax, ay]: readonly number[], [bx, by]: readonly number[]) => Math.hypot(ax - bx, ay - by);

const { skip, minFace } = flags;
const files = picturesOfPairs().slice(skip, skip + (flags.limit ?? Number.POSITIVE_INFINITY));
if (files.length === 0) program.error(`error: --skip ${skip} --limit ${flags.limit} leaves no picture.`);
const truth = independentPoints();
const weights = await loadWeights('detector');
const store = await DetectionStore.open(flags.fresh ? undefined : detectionsFile(weights.hash, minFace));
let gpu: Gpu | undefined;
let detector: Mtcnn | undefined;

async function detectionOf(file: string): Promise<Detection | undefined> {
  const bytes = await readFile(path.join(lfw, 'images', file));
  const sha = pictureHash(bytes);
  const known = store.get(sha);
  if (known || flags.cachedOnly) return known;
  gpu ??= await openGpu();
  detector ??= Mtcnn.create(gpu, weights);
  const picture = await decodePicture(bytes);
  const { width, height } = picture;
  const detection = { width, height, faces: await detector.detect(picture, { minFace }) };
  store.set(sha, detection);
  return detection;
}

let pictures = 0;
let covered = 0;
const missed: string[] = [];
const errors: number[] = [];
const byPoint = [0, 0, 0, 0, 0];
const begin = performance.now();
for (const [i, file] of files.entries()) {
  const detection = await detectionOf(file);
  if (!detection) continue;
  pictures++;
  const { width, height, faces } = detection;
  const [cx, cy] = [width / 2, height / 2];
  const covering = faces.filter(({ box: b }) => b.x1 <= cx && cx <= b.x2 && b.y1 <= cy && cy <= b.y2);
  const main = mainFace(covering, width, height);
  if (main) {
    covered++;
    const want = truth.get(file);
    if (want) {
      const each = main.landmarks.map((p, k) => distance(p, want[k]) / distance(want[0], want[1]));
      for (const [k, e] of each.entries()) byPoint[k] += e;
      errors.push(each.reduce((a, b) => a + b, 0) / 5);
    }
  } else missed.push(file);
  if ((i + 1) % 500 === 0) {
    await store.save();
    console.error(`${i + 1} of ${files.length}`);
  }
}
await store.save();
const seconds = (performance.now() - begin) / 1000;
gpu?.close();
errors.sort((a, b) => a - b);
const percent = (v: number, digits = 2) => Number((100 * v).toFixed(digits));
const at = (q: number) => percent(errors[Math.min(errors.length - 1, Math.floor(q * errors.length))]);
const result = {
  pictures,
  of: files.length,
  minFace,
  faceAtCentrePercent: percent(covered / pictures, 3),
  landmarkErrorPercent: {
    mean: percent(errors.reduce((a, b) => a + b, 0) / errors.length),
    median: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    max: at(1),
    leftEye: percent(byPoint[0] / errors.length),
    rightEye: percent(byPoint[1] / errors.length),
    nose: percent(byPoint[2] / errors.length),
    leftMouth: percent(byPoint[3] / errors.length),
    rightMouth: percent(byPoint[4] / errors.length),
  },
  missed,
  seconds: Number(seconds.toFixed(1)),
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const { landmarkErrorPercent: e } = result;
  console.log(`pictures                 ${pictures} of ${files.length}, faces from ${minFace} px`);
  console.log(`face covers the centre   ${result.faceAtCentrePercent} % (${missed.length} missed)`);
  console.log(
    `points, % of the distance between the eyes: mean ${e.mean}, median ${e.median}, 95 % ${e.p95}, 99 % ${e.p99}`,
  );
  if (missed.length > 0) console.log(`missed: ${missed.slice(0, 10).join(', ')}`);
}
