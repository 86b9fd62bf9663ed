// Annotating pictures from the command line.
import path from 'node:path';
import { cropFace } from '../face/crops.js';
import type { Facebank } from '../face/facebank.js';
import type { NamedFace } from '../face/recognizer.js';
import { encodePicture, outputFormatOf, renderAnnotated } from '../media/annotate.node.js';
import type { DrawnFace } from '../media/draw.js';
import { type Input, type Inputs, writeAtomically } from '../media/files.node.js';
import type { Picture } from '../media/picture.js';
import { boxCell, faceToJson, nameCell } from './faces.js';
import { forEachPicture, type PictureRun } from './pictures.js';
import type { Session } from './session.js';
import { table } from './table.js';
import { targetsBelow } from './targets.js';

export interface PictureFlags {
  out?: string;
  minFace: number;
  threshold?: number;
  rule: 'mean' | 'max' | 'centroid';
  landmarks: boolean;
  crops?: string;
  font?: string;
  jobs: number;
}

export interface PicturesDone {
  run: PictureRun;
  results: { out: string }[];
  rows: (string | number)[][];
}

/** Finds, names and draws the faces of every picture, and writes the results. */
export async function annotatePictures(
  session: Session,
  inputs: Inputs,
  target: (input: Input) => string,
  bank: Facebank | undefined,
  flags: PictureFlags,
  signal: AbortSignal,
): Promise<PicturesDone> {
  // Boxes and landmarks need no recogniser; names do.
  const recognizer = bank ? await session.recognizer() : undefined;
  const detector = recognizer?.detector ?? (await session.detector());
  const results: PicturesDone['results'] = [];
  const rows: (string | number)[][] = [];
  const cropBase = flags.crops && targetsBelow(flags.crops, inputs.files, () => '');
  const run = await forEachPicture(inputs, { jobs: flags.jobs, signal }, async (picture, input) => {
    const options = { minFace: flags.minFace, threshold: flags.threshold, rule: flags.rule };
    const faces: (NamedFace | Awaited<ReturnType<typeof detector.detect>>[number])[] = recognizer
      ? await recognizer.recognize(picture, bank, options)
      : await detector.detect(picture, options);
    const file = target(input);
    const { landmarks, font } = flags;
    const format = outputFormatOf(file)!;
    await writeAtomically(
      file,
      await renderAnnotated(picture, faces.map(drawn), { landmarks, font, format }),
    );
    if (cropBase) await writeCrops(cropBase(input), picture, faces);
    const { width, height } = picture;
    results.push({ path: input.path, out: file, width, height, faces: faces.map(faceToJson) } as {
      out: string;
    });
    rows.push(...rowsOf(input.path, faces));
  });
  return { run, results, rows };
}

export function printPictures({ results, rows }: PicturesDone, flags: PictureFlags): void {
  console.log(table(['picture', 'face>', 'name', 'similarity>', 'left,top size', 'score>'], rows));
  const where = results.length === 1 ? results[0].out : `${flags.out ?? 'wfr-out'}${path.sep}`;
  if (results.length > 0)
    console.log(`\n${results.length} picture${results.length === 1 ? '' : 's'} written to ${where}`);
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
