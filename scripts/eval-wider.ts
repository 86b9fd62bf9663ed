/**
 * How well a detector finds the faces of held-out WIDER FACE pictures: average precision (IoU 0.5) and recall at fixed
 * numbers of false positives a picture, for all faces and for those whose smaller side has at least 20 and 40 pixels.
 *
 *   npx tsx scripts/eval-wider.ts [--weights PATH] [--data DIR] [--min-face 20] [--limit N] [--json]
 *                              [--thresholds P,R] [--vote]
 *
 * The data are looked for in WFR_WIDER, else ../shared/data/wider; names of the held-out pictures stand in
 * scripts/data/wider-held-out.txt. O-Net's threshold is lowered to 0.05, so that the whole curve is seen; P's and R's
 * are the weights' own unless given.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError, program } from 'commander';
import { integerIn, numberIn } from '../src/cli/options.js';
import { Mtcnn } from '../src/face/detector.js';
import { openGpu } from '../src/gpu/gpu.js';
import { readPicture } from '../src/media/decode.node.js';
import { parseAnnotations } from '../src/train/mtcnn/annotations.js';
import { type Evaluated, evaluateDetections } from '../src/train/mtcnn/evaluate.js';
import { loadWeights } from '../src/weights/load.node.js';

interface Flags {
  weights?: string;
  data?: string;
  minFace: number;
  thresholds?: number[];
  vote?: boolean;
  limit?: number;
  json?: boolean;
}
const flags: Flags = program
  .option('--weights <path>', 'a detector (default: the one that wfr finds)')
  .option('--data <dir>', 'WIDER pictures with annotations.jsonl')
  .option('--min-face <px>', 'smallest face that is looked for', numberIn(1, 10_000), 20)
  .option('--thresholds <p,r>', "P- and R-Net's (default: the weights' own)", (text) => {
    const both = text.split(',').map(numberIn(0, 1));
    if (both.length !== 2) throw new InvalidArgumentError('Give two scores from 0 to 1.');
    return both;
  })
  .option('--vote', "boxes by vote, whatever the weights' metadata say")
  .option('--limit <n>', 'look at so many at most', integerIn(1, 1_000_000))
  .option('--json')
  .parse()
  .opts();
const here = path.dirname(fileURLToPath(import.meta.url));
const data = flags.data ?? process.env.WFR_WIDER ?? path.join(here, '..', '..', 'shared', 'data', 'wider');
if (!existsSync(path.join(data, 'annotations.jsonl'))) {
  console.error(`${data} holds no annotations.jsonl: give the folder with --data or in WFR_WIDER.`);
  process.exit(1);
}
const heldOut = new Set(
  readFileSync(path.join(here, 'data', 'wider-held-out.txt'), 'utf8')
    .trim()
    .split('\n'),
);
const pictures = parseAnnotations(readFileSync(path.join(data, 'annotations.jsonl'), 'utf8'))
  .filter((p) => heldOut.has(p.name))
  .slice(0, flags.limit);

const gpu = await openGpu();
const weights = await loadWeights('detector', { path: flags.weights });
const detector = Mtcnn.create(gpu, weights);
const [p, r] = flags.thresholds ?? detector.thresholds;
const evaluated: Evaluated[] = [];
const begin = performance.now();
for (const { file, faces } of pictures) {
  const found = await detector.detect(await readPicture(path.join(data, file)), {
    minFace: flags.minFace,
    thresholds: [p, r, 0.05],
    voteBoxes: flags.vote,
  });
  evaluated.push({ faces, detections: found.map(({ box, score }) => ({ ...box, score })) });
}
const seconds = (performance.now() - begin) / 1000;
await detector.destroy();
gpu.close();

const result = {
  weights: weights.files,
  pictures: evaluated.length,
  sizes: Object.fromEntries([0, 20, 40].map((least) => [least, evaluateDetections(evaluated, least)])),
  seconds: Number(seconds.toFixed(1)),
};
if (flags.json) console.log(JSON.stringify(result, null, 2));
else {
  const percent = (v: number) => `${(100 * v).toFixed(1)} %`;
  console.log(`${weights.files.join(', ')}\n${evaluated.length} pictures, ${result.seconds} s`);
  for (const [least, f] of Object.entries(result.sizes)) {
    const at = f.recallAt.map((r) => `${percent(r.recall)} at ${r.falsePositives}`).join(', ');
    console.log(
      `from ${least} px (${f.faces} faces): AP ${percent(f.averagePrecision)}, recall ${percent(f.recall)}; at false positives a picture: ${at}`,
    );
  }
}
