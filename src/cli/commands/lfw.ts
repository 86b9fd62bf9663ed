import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { Embedder } from '../../face/embedder.js';
import { FaceError } from '../../face/errors.js';
import {
  calibrate,
  requireEnoughPairs,
  type Threshold,
  withThreshold,
} from '../../face/verification/calibrate.js';
import { embedPictures, type NoFaceRule, type Timing } from '../../face/verification/embed.node.js';
import { illustrate, misjudged } from '../../face/verification/errors.node.js';
import { parseLandmarks } from '../../face/verification/lists.js';
import { evaluate, type Verification } from '../../face/verification/protocol.js';
import { meanThreshold, numbersOf, renderReport } from '../../face/verification/report.js';
import {
  requireTwoFolds,
  type ScoredSet,
  scorePairs,
  type TestSet,
  testSetFromBin,
  testSetFromList,
} from '../../face/verification/run.node.js';
import {
  DetectionStore,
  detectionsFile,
  EmbeddingStore,
  embeddingsFile,
} from '../../face/verification/store.node.js';
import { requireWritable, writeAtomically } from '../../media/files.node.js';
import { recogniserOf } from '../../nets/registry.js';
import type { LoadedWeights } from '../../weights/load.node.js';
import { interruptible } from '../interrupt.js';
import {
  examples,
  gpuOptions,
  integerIn,
  jsonOption,
  numberIn,
  precisionOption,
  weightsOption,
} from '../options.js';
import { type Session, type SessionFlags, withSession } from '../session.js';
import { table } from '../table.js';
import { steadyProgress } from '../verification.js';

interface Flags extends SessionFlags {
  data?: string;
  pairs?: string;
  bin?: string;
  landmarks?: string;
  flip: boolean;
  folds?: number;
  limit?: number;
  faceless: NoFaceRule;
  minFace: number;
  skipMissing?: boolean;
  calibrate?: number;
  report?: string;
  out?: string;
  cache: boolean;
  json?: boolean;
}

export function define(command: Command): void {
  gpuOptions(precisionOption(weightsOption(jsonOption(command))))
    .option('--data <dir>', 'pictures: a folder for each person, raw, funneled or aligned (112×112, 112×96)')
    .option('--pairs <file>', "LFW's pairs.txt, or lines of `path path 0|1`")
    .option(
      '--bin <file>',
      'an InsightFace pack (lfw.bin, cfp_fp.bin, agedb_30.bin) instead of --data and --pairs',
    )
    .option('--landmarks <file>', 'CSV of five points a picture, instead of detecting faces')
    .option('--no-flip', 'embed the picture only, without its mirror image')
    .option('--folds <n>', 'a quick look: the first n folds only (at least 2)', integerIn(2, 1000))
    .option(
      '--limit <n>',
      'a quick look: about n pairs, spread evenly over the folds',
      integerIn(4, 10_000_000),
    )
    .addOption(
      new Option('--faceless <rule>', 'pictures without a detected face')
        .choices(['centre', 'different', 'exclude'])
        .default('centre', "centre: cut where LFW's faces are on average"),
    )
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 40)
    .option('--skip-missing', 'go on without missing pictures and malformed lines, and list them')
    .option(
      '--calibrate <far>',
      "write the threshold for this false-accept rate into the weights' metadata",
      Number,
    )
    .option('--report <file>', 'write an HTML report with charts and the worst errors')
    .option('--out <file>', 'write the result as JSON to a file')
    .option('--no-cache', 'detect and embed every picture anew')
    .addOption(new Option('--net <name>', 'recogniser to prefer where several weights are found'))
    .action(lfw);
  examples(command, [
    ['wfr lfw --data lfw/ --pairs lfw/pairs.txt', 'the ten-fold protocol'],
    ['wfr lfw --data lfw/ --pairs pairs.txt --report lfw.html', 'with charts and the worst errors'],
    ['wfr lfw --bin agedb_30.bin --weights mine.safetensors', 'an InsightFace pack'],
    [
      'wfr lfw --data lfw/ --pairs pairs.txt --weights mine.safetensors --calibrate 0.01',
      'set its threshold',
    ],
  ]);
}

async function lfw(flags: Flags): Promise<void> {
  await withSession(flags, (session) => interruptible((signal) => run(flags, session, signal)));
}

async function run(flags: Flags, session: Session, signal: AbortSignal): Promise<void> {
  // Everything that can be refused is refused here: before the long part, not after it.
  checkCalibrationFlags(flags);
  for (const file of [flags.report, flags.out]) if (file !== undefined) await requireWritable(file);
  const set = await testSet(flags);
  const { different } = requireTwoFolds(set);
  if (flags.calibrate !== undefined) requireEnoughPairs(different, flags.calibrate);
  const weights = await session.weights('recogniser');
  if (flags.calibrate !== undefined) await checkCalibrationFile(weights);
  const { embedded, timing } = await embed(flags, session, set, weights, signal);
  const scored = scorePairs(set, embedded, flags.faceless);
  const result = evaluate(scored, scored.folds);
  const threshold =
    flags.calibrate === undefined
      ? undefined
      : calibrate(
          scored,
          flags.calibrate,
          `FAR ${flags.calibrate} on ${result.different} different-person pairs of ${set.name}`,
        );
  const settings = await describe(flags, session, set, scored);
  const json = toJson(set, scored, result, settings, threshold, timing);
  if (flags.report) {
    const { rejects, accepts } = misjudged(scored, result);
    const html = renderReport({
      title: `${weights.metadata.title ?? weights.metadata.net} on ${set.name}`,
      result,
      pairs: scored,
      falseRejects: await illustrate(rejects.slice(0, 10), set.pictures, embedded),
      falseAccepts: await illustrate(accepts.slice(0, 10), set.pictures, embedded),
      settings,
      notes: notes(set, scored),
    });
    await writeAtomically(flags.report, html);
  }
  if (threshold) {
    const file = weights.files[0];
    await writeAtomically(file, withThreshold(await readFile(file), threshold));
    console.error(`${file}: threshold ${threshold.similarity} (${threshold.basis}) written`);
  }
  if (flags.out) await writeAtomically(flags.out, `${JSON.stringify(json, null, 2)}\n`);
  if (flags.json) console.log(JSON.stringify(json, null, 2));
  else print(result, settings, notes(set, scored), threshold, timing);
  if (flags.report) console.error(`report: ${flags.report}`);
}

function testSet(flags: Flags): Promise<TestSet> {
  if (flags.bin) {
    if (flags.data || flags.pairs) throw new FaceError('Give either --bin or --data and --pairs, not both.');
    return testSetFromBin(flags.bin, flags);
  }
  if (!flags.data || !flags.pairs) {
    throw new FaceError('Give --data DIR and --pairs FILE, or --bin FILE: pictures and what to compare.');
  }
  return testSetFromList(flags.pairs, flags.data, flags);
}

function checkCalibrationFlags({ calibrate: far, folds, limit }: Flags): void {
  if (far === undefined) return;
  if (!(far > 0 && far < 1))
    throw new FaceError('--calibrate takes a false-accept rate between 0 and 1, e.g. 0.01.');
  if (folds !== undefined || limit !== undefined) {
    throw new FaceError(
      `--calibrate needs every pair of the list: leave out ${folds !== undefined ? '--folds' : '--limit'}, which is for a quick look.`,
    );
  }
}

async function checkCalibrationFile({ files }: LoadedWeights): Promise<void> {
  if (files.length !== 1 || path.extname(files[0]) !== '.safetensors') {
    throw new FaceError(
      `${files[0]}: a threshold can be written only into safetensors files. Convert these weights first: wfr weights convert.`,
    );
  }
  await requireWritable(files[0]);
}

async function embed(
  flags: Flags,
  session: Session,
  set: TestSet,
  weights: LoadedWeights,
  signal: AbortSignal,
) {
  const landmarks =
    flags.landmarks === undefined
      ? undefined
      : parseLandmarks(await readFile(flags.landmarks, 'utf8'), {
          name: flags.landmarks,
          skipBad: flags.skipMissing,
        });
  // Without --landmarks or --bin the detector is needed for certain: better to hear now that it is missing.
  const detector = await session.weights('detector').catch((error: unknown) => {
    if (!landmarks && !flags.bin) throw error;
    return undefined;
  });
  const detections = detector && flags.cache ? detectionsFile(detector.hash, flags.minFace) : undefined;
  const { flip, precision = 'f32' } = flags;
  const { dimension } = recogniserOf(weights.metadata.net, weights.metadata)!;
  let embedder: Promise<Embedder> | undefined;
  const bar = steadyProgress(set.pictures.length, 'pictures');
  try {
    return await embedPictures(set.pictures, {
      gpu: () => session.gpu(),
      detector: () => session.detector(),
      embedder: () => {
        embedder ??= session.gpu().then((gpu) => Embedder.create(gpu, weights, { flip, precision }));
        return embedder;
      },
      detections: await DetectionStore.open(detections),
      embeddings: await EmbeddingStore.open(
        flags.cache ? embeddingsFile(weights.hash, { flip, precision }) : undefined,
        dimension,
      ),
      landmarks,
      noFace: flags.faceless,
      minFace: flags.minFace,
      skipMissing: flags.skipMissing,
      onPicture: (id, { problem }) => {
        if (problem) {
          bar.note(`${id}: ${problem}`);
          set.problems.push(`${id}: ${problem}`);
        }
        bar.step(id);
      },
      signal,
    });
  } finally {
    bar.stop();
  }
}

const NO_FACE: Record<NoFaceRule, string> = {
  centre: "cut where LFW's faces are on average",
  different: 'their pairs count as different people',
  exclude: 'their pairs are left out',
};

async function describe(
  flags: Flags,
  session: Session,
  set: TestSet,
  { treated, excluded }: ScoredSet,
): Promise<(readonly [string, string])[]> {
  const roles =
    treated.detected.length > 0 ? (['detector', 'recogniser'] as const) : (['recogniser'] as const);
  const weights = (await session.describeWeights(roles)).map(
    (line) => line.split(/: (.*)/s).slice(0, 2) as [string, string],
  );
  const counts = Object.entries({
    'faces detected': treated.detected.length,
    'landmarks from a file': treated.given.length,
    'aligned already': treated.aligned.length,
    'no face found': treated.centre.length + treated.none.length,
  }).flatMap(([what, n]) => (n > 0 ? [`${what} ${n}`] : []));
  return [
    ...weights,
    ['pairs', `${set.name}${excluded.length > 0 ? `, ${excluded.length} pairs left out` : ''}`],
    ['pictures', counts.join(', ')],
    ['pictures without a face', NO_FACE[flags.faceless]],
    [
      'embedding',
      `${flags.flip ? 'picture + mirror image' : 'picture only'}${flags.precision === 'f16' ? ', weights and maps in halves' : ''}`,
    ],
  ];
}

function notes(set: TestSet, { treated, excluded }: ScoredSet): { summary: string; items: string[] }[] {
  const list = (summary: string, items: string[]) =>
    items.length > 0 ? [{ summary: `${items.length} ${summary}`, items }] : [];
  return [
    ...list("pictures without a detected face, cut where LFW's faces are on average", treated.centre),
    ...list('pictures without an embedding', treated.none),
    ...list(
      'pairs left out',
      excluded.map((p) => `${p.place}: ${p.a} ${p.b}`),
    ),
    ...list('lines and pictures skipped', set.problems),
  ];
}

function toJson(
  set: TestSet,
  scored: ScoredSet,
  result: Verification,
  settings: readonly (readonly [string, string])[],
  calibrated: Threshold | undefined,
  timing: Timing,
) {
  const { detected, given, aligned, centre, none } = scored.treated;
  return {
    set: set.name,
    settings: Object.fromEntries(settings),
    ...result,
    meanThresholdSimilarity: meanThreshold(result),
    pictures: {
      detected: detected.length,
      given: given.length,
      aligned: aligned.length,
      withoutFace: [...centre, ...none],
    },
    excludedPairs: scored.excluded,
    problems: set.problems,
    calibrated,
    seconds: timing,
  };
}

function print(
  result: Verification,
  settings: readonly (readonly [string, string])[],
  remarks: readonly { summary: string; items: readonly string[] }[],
  calibrated: Threshold | undefined,
  timing: Timing,
): void {
  for (const [term, text] of settings) console.log(`${term}: ${text}`);
  console.log(`\n${table(['', 'value', ''], numbersOf(result))}\n`);
  const folds = result.folds.map((f, i) => [
    i + 1,
    f.pairs,
    `${(f.accuracy * 100).toFixed(2)} %`,
    (1 - f.threshold / 2).toFixed(4),
  ]);
  console.log(table(['fold>', 'pairs>', 'accuracy>', 'threshold (similarity)>'], folds));
  if (calibrated) console.log(`\ncalibrated: similarity ${calibrated.similarity}, ${calibrated.basis}`);
  for (const { summary, items } of remarks) {
    console.log(`\n${summary}:`);
    for (const item of items.slice(0, 20)) console.log(`  ${item}`);
    if (items.length > 20) console.log(`  … and ${items.length - 20} more (all with --json)`);
  }
  const rates = (['decode', 'detect', 'embed'] as const).flatMap((stage) =>
    timing.count[stage] > 0 ? [`${stage} ${(timing.count[stage] / timing[stage]).toFixed(1)}/s`] : [],
  );
  console.log(`\n${rates.length > 0 ? `speed: ${rates.join(', ')}` : 'all embeddings came from the cache'}`);
}
