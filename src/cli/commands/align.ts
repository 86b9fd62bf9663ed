import path from 'node:path';
import type { Command } from 'commander';
import { alignFace } from '../../face/crops.js';
import { FaceError } from '../../face/errors.js';
import { mainFace } from '../../face/recognizer.js';
import { encodePicture } from '../../media/annotate.node.js';
import { expandInputs, writeAtomically } from '../../media/files.node.js';
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
import { targetsBelow } from '../targets.js';

interface Flags extends GpuFlags, JsonFlags, WeightsFlags {
  out: string;
  size: number;
  minFace: number;
  jobs: number;
}

export function define(command: Command): void {
  gpuOptions(weightsOption(jsonOption(command)))
    .argument('<folders...>', 'folders of pictures (one folder a person, usually), files or patterns')
    .requiredOption('-o, --out <dir>', 'folder for the aligned faces; the structure of the input is kept')
    .option('--size <px>', 'side of the aligned faces', integerIn(32, 1024), 112)
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 20)
    .option('--jobs <n>', 'pictures decoded ahead', integerIn(1, 64), 2)
    .action(align);
  examples(command, [
    ['wfr align photos/ --out faces112/', 'the main face of every picture, for training'],
    ['wfr align photos/ --out faces/ --size 160 --json', 'another size, with a report'],
  ]);
}

async function align(args: string[], flags: Flags): Promise<void> {
  await withSession(flags, (session) =>
    interruptible(async (signal) => {
      const inputs = await expandInputs(args);
      const target = targetsBelow(flags.out, inputs.files, () => '.png');
      const detector = await session.detector();
      const run = await forEachPicture(inputs, { jobs: flags.jobs, signal }, async (picture, input) => {
        const main = mainFace(
          await detector.detect(picture, { minFace: flags.minFace }),
          picture.width,
          picture.height,
        );
        if (!main) throw new FaceError('no face found');
        const face = alignFace(picture, main.landmarks, flags.size, flags.size);
        await writeAtomically(target(input), await encodePicture(face, 'png'));
      });
      if (flags.json) console.log(JSON.stringify({ aligned: run.done, skipped: run.failed }, null, 2));
      else
        console.log(
          `${run.done} faces written to ${flags.out}${path.sep}, ${run.failed.length} pictures skipped`,
        );
    }),
  );
}
