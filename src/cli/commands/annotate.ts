import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { cropFace } from '../../face/crops.js';
import type { Facebank } from '../../face/facebank.js';
import { loadBank } from '../../face/facebank.node.js';
import type { NamedFace } from '../../face/recognizer.js';
import { WfrError } from '../../gpu/errors.js';
import {
  encodePicture,
  OUTPUT_FORMATS,
  type OutputFormat,
  outputFormatOf,
  renderAnnotated,
} from '../../media/annotate.node.js';
import type { DrawnFace } from '../../media/draw.js';
import { expandInputs, type Input, writeAtomically } from '../../media/files.node.js';
import { fontsFor } from '../../media/fonts.node.js';
import type { Picture } from '../../media/picture.js';
import { boxCell, faceToJson, nameCell } from '../faces.js';
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
import { progress } from '../progress.js';
import { type Session, withSession } from '../session.js';
import { table } from '../table.js';
import { targetsBelow } from '../targets.js';

interface Flags extends GpuFlags, JsonFlags, WeightsFlags {
  bank?: string;
  out?: string;
  format?: OutputFormat;
  minFace: number;
  threshold?: number;
  rule: 'mean' | 'max' | 'centroid';
  landmarks: boolean;
  net?: string;
  crops?: string;
  font?: string;
  jobs: number;
}

export function define(command: Command): void {
  gpuOptions(weightsOption(jsonOption(command)))
    .argument('<pictures...>', 'files, folders (with their subfolders) or patterns')
    .option('-b, --bank <dir>', 'known people: a folder of pictures for each, named after them')
    .option(
      '-o, --out <path>',
      'folder for the results, or a file name for a single picture (default: wfr-out)',
    )
    .addOption(
      new Option('--format <f>', 'format of the results (default: as the picture, else jpg)').choices([
        ...OUTPUT_FORMATS,
      ]),
    )
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 50)
    .option(
      '--threshold <s>',
      "similarity from which a face is named (default: the weights' own)",
      numberIn(-1, 1),
    )
    .addOption(
      new Option('--rule <r>', "how a person's several pictures count")
        .choices(['mean', 'max', 'centroid'])
        .default('mean'),
    )
    .option('--no-landmarks', 'draw boxes and names only')
    .option('--net <name>', 'recogniser to prefer where several weights are found')
    .option('--crops <dir>', 'also write every face as a picture of its own')
    .option('--font <file>', 'font for the names (ttf, otf or woff2)')
    .option('--jobs <n>', 'pictures decoded ahead', integerIn(1, 64), 2)
    .action(annotate);
  examples(command, [
    ['wfr annotate group.jpg --bank people/', 'writes wfr-out/group.jpg with boxes and names'],
    ['wfr annotate holiday/ --bank people/ --out named/', 'a folder, its structure kept'],
    ['wfr annotate group.jpg --out faces.png --no-landmarks', 'one picture to a name of your choice'],
    ['wfr annotate "*.jpg" --json > faces.json', 'boxes, points, names and similarities too'],
  ]);
}

async function annotate(args: string[], flags: Flags): Promise<void> {
  await withSession(flags, (session) =>
    interruptible(async (signal) => {
      if (flags.font) fontsFor([], flags.font); // A font that cannot be read is told before the long part.
      const { files } = await expandInputs(args);
      const target = targetOf(files, flags);
      const cropBase = flags.crops && targetsBelow(flags.crops, files, () => '');
      const bank = flags.bank ? await openBank(session, flags.bank, signal) : undefined;
      // Boxes and landmarks need no recogniser; names do.
      const recognizer = bank ? await session.recognizer() : undefined;
      const detector = recognizer?.detector ?? (await session.detector());
      const results: object[] = [];
      const rows: (string | number)[][] = [];
      const run = await forEachPicture(args, { jobs: flags.jobs, signal }, async (picture, input) => {
        const options = { minFace: flags.minFace, threshold: flags.threshold, rule: flags.rule };
        const faces: (NamedFace | Awaited<ReturnType<typeof detector.detect>>[number])[] = recognizer
          ? await recognizer.recognize(picture, bank, options)
          : await detector.detect(picture, options);
        const file = target(input);
        const format = outputFormatOf(file)!;
        await writeAtomically(
          file,
          await renderAnnotated(picture, faces.map(drawn), {
            landmarks: flags.landmarks,
            font: flags.font,
            format,
          }),
        );
        if (cropBase) await writeCrops(cropBase(input), picture, faces);
        results.push({
          path: input.path,
          out: file,
          width: picture.width,
          height: picture.height,
          faces: faces.map(faceToJson),
        });
        rows.push(...rowsOf(input.path, faces));
      });
      if (flags.json) console.log(JSON.stringify({ pictures: results, failed: run.failed }, null, 2));
      else {
        console.log(table(['picture', 'face>', 'name', 'similarity>', 'left,top size', 'score>'], rows));
        const where =
          results.length === 1 ? (results[0] as { out: string }).out : `${flags.out ?? 'wfr-out'}${path.sep}`;
        if (results.length > 0)
          console.log(`\n${results.length} picture${results.length === 1 ? '' : 's'} written to ${where}`);
      }
    }),
  );
}

/** Which file a picture's result goes to. */
function targetOf(files: readonly Input[], flags: Flags): (input: Pick<Input, 'path'>) => string {
  const { out = 'wfr-out' } = flags;
  const named = outputFormatOf(out);
  if (named && !(existsSync(out) && statSync(out).isDirectory())) {
    if (files.length > 1)
      throw new WfrError(`--out ${out} is one file, but ${files.length} pictures were given: name a folder.`);
    if (flags.format && flags.format !== named)
      throw new WfrError(`--out ${out} and --format ${flags.format} disagree.`);
    return () => out;
  }
  if (path.extname(out) && files.length === 1 && !existsSync(out)) {
    throw new WfrError(`--out ${out}: pictures are written as ${OUTPUT_FORMATS.join(', ')}.`);
  }
  return targetsBelow(out, files, (f) => `.${flags.format ?? outputFormatOf(f.relative) ?? 'jpg'}`);
}

async function openBank(session: Session, folder: string, signal: AbortSignal): Promise<Facebank> {
  let bar: ReturnType<typeof progress> | undefined;
  try {
    const { bank, pictures } = await loadBank(folder, () => session.recognizer(), {
      weightsHash: await session.weightsHash(),
      signal,
      onPicture: (_, total, picture) => {
        bar ??= progress(total, 'bank pictures');
        bar.step(picture.picture);
      },
    });
    for (const { picture, problem } of pictures)
      if (problem) console.error(`${path.join(folder, picture)}: ${problem}`);
    if (bank.names.length === 0) throw new WfrError(`${folder}: no picture of the bank shows a face.`);
    return bank;
  } finally {
    bar?.stop();
  }
}

type AnyFace = Parameters<typeof faceToJson>[0];

const isNamed = (face: AnyFace): face is NamedFace => face.status !== undefined;

function drawn(face: AnyFace): DrawnFace {
  if (!isNamed(face)) return { box: face.box, landmarks: face.landmarks };
  const known = face.status !== 'unknown';
  return {
    box: face.box,
    landmarks: face.landmarks,
    label: known ? face.name : 'unknown',
    similarity: known ? face.similarity : undefined,
    status: face.status,
  };
}

function rowsOf(file: string, faces: readonly AnyFace[]): (string | number)[][] {
  if (faces.length === 0) return [[file, '–', 'no face', '', '', '']];
  return faces.map((face, i) => [
    i === 0 ? file : '',
    i + 1,
    isNamed(face) ? nameCell(face) : '',
    isNamed(face) && face.similarity !== undefined ? face.similarity.toFixed(2) : '',
    boxCell(face),
    face.score.toFixed(3),
  ]);
}

/** Every face to `BASE-1.jpg`, `BASE-2.jpg`, … in the order of the table. */
async function writeCrops(base: string, picture: Picture, faces: readonly AnyFace[]): Promise<void> {
  for (const [i, face] of faces.entries()) {
    const crop = cropFace(picture, face.box);
    if (crop) await writeAtomically(`${base}-${i + 1}.jpg`, await encodePicture(crop, 'jpg'));
  }
}
