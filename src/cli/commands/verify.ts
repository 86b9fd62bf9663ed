import { type Command, Option } from 'commander';
import { FaceError } from '../../face/errors.js';
import { cosine } from '../../face/match.js';
import { mainFace } from '../../face/recognizer.js';
import { readPicture } from '../../media/decode.node.js';
import { boxCell } from '../faces.js';
import {
  examples,
  type GpuFlags,
  gpuOptions,
  type JsonFlags,
  jsonOption,
  numberIn,
  type PrecisionFlags,
  precisionOption,
  type WeightsFlags,
  weightsOption,
} from '../options.js';
import { withSession } from '../session.js';

interface Flags extends GpuFlags, JsonFlags, PrecisionFlags, WeightsFlags {
  threshold?: number;
  net?: string;
  minFace: number;
}

export function define(command: Command): void {
  gpuOptions(precisionOption(weightsOption(jsonOption(command))))
    .argument('<a>', 'a picture of a person')
    .argument('<b>', 'another picture')
    .option(
      '--threshold <s>',
      "similarity from which they count as one person (default: the weights' own)",
      numberIn(-1, 1),
    )
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 20)
    .addOption(new Option('--net <name>', 'recogniser to prefer where several weights are found'))
    .addHelpText(
      'after',
      '\nThe exit status is 0 for either answer; scripts read `same` of --json. It is 1 where there is no answer,\nas for a picture without a face.',
    )
    .action(verify);
  examples(command, [
    ['wfr verify passport.jpg selfie.jpg', 'same person or not, with the similarity'],
    ['wfr verify a.jpg b.jpg --json', 'for scripts'],
  ]);
}

async function verify(a: string, b: string, flags: Flags): Promise<void> {
  await withSession(flags, async (session) => {
    const recognizer = await session.recognizer();
    const faces = [];
    for (const file of [a, b]) {
      const picture = await readPicture(file);
      const found = await recognizer.recognize(picture, undefined, { minFace: flags.minFace });
      const main = mainFace(found, picture.width, picture.height);
      if (!main)
        throw new FaceError(
          `${file}: no face of ${flags.minFace} pixels or more was found; try a smaller --min-face.`,
        );
      if (found.length > 1 && !flags.json)
        console.error(`${file}: ${found.length} faces; taking the one at ${boxCell(main)}`);
      faces.push(main);
    }
    const similarity = cosine(faces[0].embedding, faces[1].embedding);
    const threshold = flags.threshold ?? recognizer.threshold;
    const basis =
      flags.threshold !== undefined
        ? 'given'
        : ((await session.weights('recogniser')).metadata.threshold?.basis ??
          'default, not calibrated for these weights');
    const same = similarity >= threshold;
    if (flags.json) {
      console.log(
        JSON.stringify(
          {
            same,
            similarity,
            threshold,
            basis,
            weights: await session.describeWeights(['detector', 'recogniser']),
          },
          null,
          2,
        ),
      );
    } else {
      console.log(
        `${same ? 'same person' : 'different people'}: similarity ${similarity.toFixed(3)}, threshold ${threshold.toFixed(3)} (${basis})`,
      );
    }
  });
}
