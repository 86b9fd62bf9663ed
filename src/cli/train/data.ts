// What `wfr train` learns from and is measured on.
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { alignFace } from '../../face/crops.js';
import { mainFace } from '../../face/recognizer.js';
import { WfrError } from '../../gpu/errors.js';
import { requireFolder } from '../../media/files.node.js';
import type { Picture } from '../../media/picture.js';
import { type FoundSet, findSets, packSets } from '../../train/data/open.node.js';
import type { PackedSet } from '../../train/data/packed_source.node.js';
import { Validation, type ValidationList, type ValidationListOptions } from '../../train/validation.node.js';
import type { Session } from '../session.js';
import { steadyProgress } from '../verification.js';
import { removeLeftovers } from './leftovers.js';
import { SIDE, type TrainFlags } from './options.js';

export interface FoundData {
  sets: FoundSet[];
  /** Undefined without --val. */
  validation?: ValidationList;
}

/** Looks at all input before anything is written. @throws WfrError naming what is missing or does not fit. */
export async function findData(flags: TrainFlags): Promise<FoundData> {
  const { data, distill, val, valData, cache } = flags;
  if (data.length === 0) throw new WfrError('Give --data DIR: the pictures to learn from.');
  if (val && !valData) throw new WfrError('--val needs --val-data DIR: the pictures of the pairs.');
  if (valData && !(await exists(valData)))
    throw new WfrError(`--val-data ${valData}: there is no such folder.`);
  if (val && !(await exists(pairsOf(val, valData!))))
    throw new WfrError(`${pairsOf(val, valData!)}: no such list of pairs for --val.`);
  if (flags.valLandmarks && !(await exists(flags.valLandmarks)))
    throw new WfrError(`--val-landmarks ${flags.valLandmarks}: no such file.`);
  if (cache) await requireFolder(cache);
  if (distill.length > 0 && distill.every((file) => file === '-'))
    throw new WfrError(
      '--distill - stands for a data set without a teacher: give FILE.npy for one at least, or leave it out.',
    );
  const teachers = distill.map((file) => (file === '-' ? undefined : file));
  const sets = await findSets(data, teachers, SIDE);
  return { sets, validation: val && valData ? await Validation.list(await listOf(flags)) : undefined };
}

/**
 * Packs of the data, made where they are missing; the detector is opened only when a picture needs aligning. Pictures
 * that cannot be used are reported, each time.
 */
export async function packData(
  found: readonly FoundSet[],
  flags: TrainFlags,
  session: Session,
  signal: AbortSignal,
): Promise<PackedSet[]> {
  const packed = new Set<string>();
  if (flags.cache) await removeLeftovers(flags.cache, 'pack', HOUR);
  const sets = await packSets(found, {
    cache: flags.cache ?? path.join(flags.out, 'cache'),
    side: SIDE,
    encoding: flags.pack,
    align: flags.align ? (picture) => alignMain(session, picture) : undefined,
    onPacking: ({ source, pictures }) => {
      packed.add(source);
      console.error(`${source}: packing ${pictures.length} pictures`);
      return steadyProgress(pictures.length, 'pictures');
    },
    signal,
  });
  for (const [i, { pack }] of sets.entries()) {
    const { skipped, listed } = pack.index;
    if (skipped.length === 0) continue;
    const { source } = found[i];
    console.error(`${source}: ${skipped.length} of ${listed} pictures cannot be used and are left out`);
    if (packed.has(source)) continue;
    for (const [name, reason] of skipped.slice(0, MOST_NAMED)) console.error(`${source}: ${name}: ${reason}`);
    if (skipped.length > MOST_NAMED)
      console.error(`… and ${skipped.length - MOST_NAMED} more, see report.html`);
  }
  return sets;
}

const HOUR = 3600;

/** Pictures left out that are named at a run that did not pack them. */
const MOST_NAMED = 20;

async function alignMain(session: Session, picture: Picture): Promise<Picture | undefined> {
  const faces = await (await session.detector()).detect(picture, { minFace: 20 });
  const main = mainFace(faces, picture.width, picture.height);
  return main && alignFace(picture, main.landmarks, SIDE, SIDE);
}

/** Undefined without --val. A picture that cannot be read counts as one without a face, and is reported. */
export async function openValidation(
  list: ValidationList | undefined,
  flags: TrainFlags,
  session: Session,
  signal: AbortSignal,
): Promise<Validation | undefined> {
  if (!list) return undefined;
  let bar: ReturnType<typeof steadyProgress> | undefined;
  const options = {
    ...(await listOf(flags)),
    side: SIDE,
    align: (picture: Picture) => alignMain(session, picture),
    onStart: (n: number) => {
      bar = steadyProgress(n, 'pictures to validate on');
    },
    onPicture: (id: string, problem?: string) => {
      if (problem) bar?.note(`${flags.valData}: ${id}: ${problem}`);
      bar?.step(id);
    },
    signal,
  };
  try {
    return await Validation.open(options, list);
  } finally {
    bar?.stop();
  }
}

/** @param flags with --val and --val-data */
async function listOf(flags: TrainFlags): Promise<ValidationListOptions> {
  const [val, valData] = [flags.val!, flags.valData!];
  const images = path.join(valData, 'images');
  const landmarks = path.join(valData, 'mtcnn_landmarks.csv');
  const isLfw = val === 'lfw';
  return {
    pairs: pairsOf(val, valData),
    data: isLfw && (await exists(images)) ? images : valData,
    landmarks: flags.valLandmarks ?? (isLfw && (await exists(landmarks)) ? landmarks : undefined),
    limit: flags.valLimit,
  };
}

const pairsOf = (val: string, valData: string): string =>
  val === 'lfw' ? path.join(valData, 'pairs.txt') : val;

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );
