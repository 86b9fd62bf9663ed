import type { Command } from 'commander';
import { boxCell, faceToJson } from '../faces.js';
import { interruptible } from '../interrupt.js';
import {
  examples,
  type GpuFlags,
  gpuOptions,
  integerIn,
  type JsonFlags,
  jsonOption,
  numberIn,
  type WeightsFlags,
  weightsOption,
} from '../options.js';
import { forEachPicture } from '../pictures.js';
import { withSession } from '../session.js';
import { table } from '../table.js';

interface Flags extends GpuFlags, JsonFlags, WeightsFlags {
  minFace: number;
  minScore?: number;
  factor: number;
  jobs: number;
}

export function define(command: Command): void {
  gpuOptions(weightsOption(jsonOption(command)))
    .argument('<pictures...>', 'files, folders (with their subfolders) or patterns')
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 50)
    .option(
      '--min-score <s>',
      "least score of a face, 0…1 (default: the weights' own, usually 0.7)",
      numberIn(0, 1),
    )
    .option('--factor <f>', 'ratio of successive sizes that are searched', numberIn(0.3, 0.95), 0.709)
    .option('--jobs <n>', 'pictures decoded ahead', integerIn(1, 64), 2)
    .action(detect);
  examples(command, [
    ['wfr detect photo.jpg', 'boxes and scores as a table'],
    ['wfr detect --json holiday/ > faces.json', 'with landmarks, for every picture of a folder'],
    ['wfr detect --min-face 20 crowd.jpg', 'small faces too (slower)'],
  ]);
}

async function detect(args: string[], flags: Flags): Promise<void> {
  await withSession(flags, (session) =>
    interruptible(async (signal) => {
      const results: object[] = [];
      const rows: (string | number)[][] = [];
      const detector = await session.detector();
      const [p, r, o] = detector.thresholds;
      const thresholds = [p, r, flags.minScore ?? o] as const;
      const run = await forEachPicture(args, { jobs: flags.jobs, signal }, async (picture, input) => {
        const faces = await detector.detect(picture, {
          minFace: flags.minFace,
          factor: flags.factor,
          thresholds,
        });
        results.push({
          path: input.path,
          width: picture.width,
          height: picture.height,
          faces: faces.map(faceToJson),
        });
        for (const [i, face] of faces.entries())
          rows.push([i === 0 ? input.path : '', i + 1, boxCell(face), face.score.toFixed(3)]);
        if (faces.length === 0) rows.push([input.path, '–', 'no face', '']);
      });
      if (flags.json) console.log(JSON.stringify({ pictures: results, failed: run.failed }, null, 2));
      else console.log(table(['picture', 'face>', 'left,top size', 'score>'], rows));
    }),
  );
}
