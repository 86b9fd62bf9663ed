import { mkdir, stat } from 'node:fs/promises';
import { totalmem } from 'node:os';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { alignFace } from '../../face/crops.js';
import { mainFace } from '../../face/recognizer.js';
import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import { measureFmaRate } from '../../kernels/probe/measure.js';
import { writeAtomically } from '../../media/files.node.js';
import type { Picture } from '../../media/picture.js';
import { type CardInput, metadataOf, modelCard } from '../../train/card.js';
import { trainingCharts } from '../../train/charts.js';
import { CheckpointStore } from '../../train/checkpoint.node.js';
import { parseAugmentation } from '../../train/data/augment.js';
import { openSets } from '../../train/data/open.node.js';
import type { PackEncoding } from '../../train/data/pack.node.js';
import { type PackedSet, PackedSource } from '../../train/data/packed_source.node.js';
import { TrainingLog } from '../../train/log.node.js';
import { renderTrainingReport } from '../../train/report.js';
import { SCHEDULES } from '../../train/schedule.js';
import { type Recipe, Trainer } from '../../train/trainer.js';
import { Validation, type ValidationResult } from '../../train/validation.node.js';
import { openWeights, saveWeights } from '../../weights/save.node.js';
import { interruptible } from '../interrupt.js';
import { collect, examples, gpuOptions, integerIn, numberIn, weightsOption } from '../options.js';
import { type Session, type SessionFlags, withSession } from '../session.js';
import { duration, TrainProgress } from '../train_progress.js';
import { LOSSES, NETS, type RecipeFlags, recipeOf } from '../train_recipe.js';
import { steadyProgress } from '../verification.js';

interface Flags extends Omit<SessionFlags, 'net'>, RecipeFlags {
  data: string[];
  distill: string[];
  out: string;
  cache?: string;
  pack?: PackEncoding;
  align: boolean;
  augment: string;
  threads: number;
  resume?: boolean;
  init?: string;
  val?: string;
  valData?: string;
  valLandmarks?: string;
  valLimit: number;
  valEvery: number;
  checkpointEvery: number;
  keep: number;
  logEvery: number;
  memory?: number;
}

/** Side of the packed pictures: the template's. */
const SIDE = 112;

export function define(command: Command): void {
  const share = numberIn(0, 1);
  const positive = numberIn(1e-12, 1e12);
  const count = integerIn(1, 1_000_000_000);
  command
    .option(
      '--data <dir>',
      'pictures: a folder for each person, a folder with index.csv, a list in a file, or a pack; repeatable',
      collect,
      [],
    )
    .option(
      '--distill <file>',
      "learn from a teacher's embeddings (.npy, a row a picture in the order of index.csv): one for each --data, - for none",
      collect,
      [],
    )
    .option('-o, --out <dir>', 'folder for weights, checkpoints, log and report', 'out/train')
    .addOption(new Option('--net <name>', 'the net').choices(NETS).default('mobilefacenet'))
    .option(
      '--embedding <n>',
      'length of the embedding (default: 128 mobilefacenet, else 512)',
      integerIn(2, 4096),
    )
    .option(
      '--size <px>',
      'side of the pictures that the net sees; 56 trains four times as fast',
      integerIn(32, 112),
      112,
    )
    .option('--batch <n>', 'pictures a step', integerIn(2, 4096), 64)
    .option('--epochs <n>', 'times that every picture is seen', positive, 20)
    .option(
      '--lr <rate>',
      'highest learning rate (default: 0.1 × batch / 1024 for sgd, 0.001 for adamw)',
      positive,
    )
    .addOption(
      new Option('--optimizer <name>', 'how weights follow gradients')
        .choices(['sgd', 'adamw'])
        .default('sgd'),
    )
    .option('--momentum <m>', 'of sgd', share, 0.9)
    .option('--nesterov', 'sgd looks ahead along the momentum')
    .option('--weight-decay <d>', 'default: 0.0005 sgd, 0.01 adamw', numberIn(0, 1))
    .addOption(
      new Option('--schedule <name>', 'how the rate changes').choices(SCHEDULES).default('polynomial'),
    )
    .option(
      '--warmup <epochs>',
      'the rate rises from zero (default: a tenth of the run, at most 1; 0 for step and one-cycle)',
      numberIn(0, 1e6),
    )
    .addOption(
      new Option('--loss <name>', 'over identities (default: arcface, none with a teacher)').choices(LOSSES),
    )
    .option('--margin <m>', 'default: 0.5 arcface, 0.4 cosface, 1,0.3,0.2 combined')
    .option('--scale <s>', 'radius of the hypersphere', positive, 64)
    .option('--exact-gradient', "the margin's true gradient, not the straight-through one")
    .option('--gamma <g>', 'focal loss', numberIn(0, 10), 0)
    .option(
      '--sample-rate <r>',
      'share of the identities that a step looks at (Partial FC)',
      numberIn(1e-6, 1),
      1,
    )
    .option('--identity-weight <w>', 'factor on the loss over identities', positive, 1)
    .option('--distill-weight <w>', "factor on 1 − cosine to the teacher's embedding", numberIn(0, 1e6), 1)
    .option(
      '--relation-weight <w>',
      'factor on the squared difference of similarities in the batch',
      numberIn(0, 1e6),
      5,
    )
    .option(
      '--augment <list>',
      'mirror,affine,crop,lowres,colour,gray,blur,jpeg,erase,occlude (each may have =probability), none or all',
      'mirror',
    )
    .option('--clip <norm>', 'scale longer gradients down to this norm; 0 for never', numberIn(0, 1e6), 5)
    .option('--accumulate <n>', 'batches whose gradients make one step', integerIn(1, 1024), 1)
    .option(
      '--ema <decay>',
      'keep and save a moving average of the weights, e.g. 0.999',
      numberIn(0, 0.999999),
    )
    .addOption(
      new Option('--precision <type>', 'storage of maps: f16 takes half the memory')
        .choices(['f32', 'f16'])
        .default('f32'),
    )
    .option('--recompute', 'keep few maps and compute the others again: less memory, a third more time')
    .option('--init <weights>', 'begin with these weights (fine-tuning, or another --size)')
    .option('--freeze <names>', 'weights whose names begin so stay as they are: stem,dw,blocks.0')
    .option('--resume', 'continue from the last checkpoint in --out')
    .option(
      '--val <pairs>',
      "measure verification accuracy: a list of pairs, or lfw for --val-data's pairs.txt",
    )
    .option('--val-data <dir>', 'pictures of the pairs')
    .option('--val-landmarks <file>', 'CSV of five points a picture, instead of detecting faces')
    .option('--val-limit <n>', 'use about so many pairs', integerIn(4, 10_000_000), 1000)
    .option('--val-every <epochs>', 'epochs between two measurements', integerIn(1, 1000), 1)
    .option('--seed <n>', 'of first weights, order and augmentation', integerIn(0, 2 ** 31 - 1), 1)
    .option('--checkpoint-every <steps>', 'steps between checkpoints', count, 500)
    .option('--keep <n>', 'checkpoints kept', integerIn(1, 100), 3)
    .option('--log-every <steps>', 'steps between lines of the log', count, 10)
    .option('--threads <n>', 'threads that decode and augment', integerIn(1, 64), 2)
    .option('--cache <dir>', 'folder for packed pictures (default: cache/ in --out)')
    .addOption(
      new Option('--pack <how>', 'raw is fast, compressed small (default: raw if memory allows)').choices([
        'raw',
        'compressed',
      ]),
    )
    .option('--no-align', `do not look for faces in pictures that are not ${SIDE}×${SIDE}: resize them`)
    .option(
      '--memory <GB>',
      'refuse to begin when a step needs more (default: 80 % of the memory, on a software adapter)',
      positive,
    );
  gpuOptions(weightsOption(command)).action(train);
  examples(command, [
    ['wfr train --data people/', 'MobileFaceNet with ArcFace on a folder for each person'],
    ['wfr train --data people/ --val lfw --val-data lfw/', 'with accuracy on pairs after each epoch'],
    ['wfr train --data people/ --init base.safetensors --lr 0.001 --epochs 5', 'fine-tuning'],
    [
      'wfr train --data faces/ --distill teacher.npy --optimizer adamw --schedule one-cycle',
      'from a teacher',
    ],
    ['wfr train --data people/ --resume', 'go on after an interruption'],
    ['wfr train mtcnn --help', 'the detector has a command of its own'],
  ]);
}

async function train(flags: Flags): Promise<void> {
  if (flags.data.length === 0) throw new WfrError('Give --data DIR: the pictures to learn from.');
  if (flags.val && !flags.valData)
    throw new WfrError('--val needs --val-data DIR: the pictures of the pairs.');
  // `--net` of a session chooses among weights for aligning; here it says what to train.
  const { net: _, ...sessionFlags } = flags;
  await withSession(sessionFlags, (session) => interruptible((signal) => run(flags, session, signal)));
}

async function run(flags: Flags, session: Session, signal: AbortSignal): Promise<void> {
  const augmentation = parseAugmentation(flags.augment);
  await mkdir(flags.out, { recursive: true });
  const sets = await openData(flags, session, signal);
  const identities = new Set(sets.flatMap(({ pack }) => pack.index.identities)).size;
  const recipe = recipeOf(flags, {
    identities: identities - (sets.some(({ pack }) => pack.index.identities.includes(null)) ? 1 : 0),
    isTaught: sets.some(({ teacher }) => teacher !== undefined),
  });
  const { mean, scale } = recipe.description.preprocessing!;
  const source = new PackedSource(sets, {
    batch: recipe.batch,
    size: recipe.size,
    seed: recipe.seed,
    augmentation,
    normalisation: { mean, scale },
    threads: flags.threads,
  });
  const gpu = await session.gpu();
  let trainer: Trainer | undefined;
  try {
    checkMemory(gpu, recipe, source, flags);
    const checkpoints = await CheckpointStore.open(path.join(flags.out, 'checkpoints'), flags.keep);
    const init = flags.init ? (await openWeights([flags.init])).state : undefined;
    trainer = await Trainer.create(gpu, recipe, source, {
      init,
      checkpoints,
      checkpointEvery: flags.checkpointEvery,
    });
    if (trainer.missing.length > 0)
      console.error(`${flags.init} has no ${shortList(trainer.missing)}: begun at random.`);
    await beginOrResume(flags, trainer, checkpoints);
    await runTrainer(flags, { session, gpu, sets, source, trainer, signal });
  } finally {
    trainer?.destroy();
    await source.close();
  }
}

/** Packs of the data, made where they are missing; the detector is opened only when a picture needs aligning. */
function openData(flags: Flags, session: Session, signal: AbortSignal): Promise<PackedSet[]> {
  return openSets(
    flags.data,
    flags.distill.map((file) => (file === '-' ? undefined : file)),
    {
      cache: flags.cache ?? path.join(flags.out, 'cache'),
      side: SIDE,
      encoding: flags.pack,
      align: flags.align ? (picture) => alignMain(session, picture) : undefined,
      onPacking: ({ source, pictures }) => {
        console.error(`${source}: packing ${pictures.length} pictures`);
        return steadyProgress(pictures.length, 'pictures');
      },
      signal,
    },
  );
}

async function alignMain(session: Session, picture: Picture): Promise<Picture | undefined> {
  const faces = await (await session.detector()).detect(picture, { minFace: 20 });
  const main = mainFace(faces, picture.width, picture.height);
  return main && alignFace(picture, main.landmarks, SIDE, SIDE);
}

/** Says what a step takes, and refuses what cannot fit, with the largest batch that does. */
function checkMemory(gpu: Gpu, recipe: Recipe, source: PackedSource, flags: Flags): void {
  const limit = flags.memory
    ? flags.memory * 1e9
    : gpu.traits.kind === 'cpu'
      ? 0.8 * totalmem()
      : Number.POSITIVE_INFINITY;
  const { maxBufferSize } = gpu.device.limits;
  const plan = (batch: number) => Trainer.plan(gpu, { ...recipe, batch }, source);
  const fits = (batch: number) => {
    const { total, arena } = plan(batch);
    return total <= limit && arena <= maxBufferSize;
  };
  const { total, arena, parameters, flops } = plan(recipe.batch);
  console.error(
    `a step: ${megabytes(total)} MB (maps ${megabytes(arena)}, weights with gradients and moments ${megabytes(parameters)}), ${(flops / 1e9).toFixed(1)} GFLOP`,
  );
  if (fits(recipe.batch)) return;
  let [low, high] = [1, recipe.batch];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  throw new WfrError(
    `A batch of ${recipe.batch} needs ${megabytes(total)} MB, more than ${megabytes(Math.min(limit, maxBufferSize))} MB. The largest that fits is ${low}; --accumulate makes up for a smaller one.`,
  );
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);
const shortList = (names: readonly string[]): string =>
  names.length > 4 ? `${names.slice(0, 4).join(', ')} and ${names.length - 4} more` : names.join(', ');

async function beginOrResume(flags: Flags, trainer: Trainer, checkpoints: CheckpointStore): Promise<void> {
  const there = await checkpoints.steps();
  if (!flags.resume) {
    // The first checkpoint of a new run would otherwise be older than those of the last.
    if (there.some((step) => step > 0))
      throw new WfrError(
        `${flags.out} holds the checkpoints of a run. Add --resume to go on with it, or give another --out.`,
      );
    return;
  }
  const last = await checkpoints.latest((message) => console.error(`${message}; the one before is used`));
  if (!last) {
    console.error(`${checkpoints.folder} holds no checkpoint: beginning at step 0`);
    return;
  }
  trainer.restore(last);
  console.error(`resumed at step ${last.step} of ${trainer.steps}`);
}

interface Running {
  session: Session;
  gpu: Gpu;
  sets: readonly PackedSet[];
  source: PackedSource;
  trainer: Trainer;
  signal: AbortSignal;
}

async function runTrainer(flags: Flags, r: Running): Promise<void> {
  const { gpu, trainer, source, signal } = r;
  const { recipe } = trainer;
  const validation = await openValidation(flags, r.session);
  const log = await TrainingLog.open(path.join(flags.out, 'log.jsonl'), trainer.step);
  const peak = (await measureFmaRate(gpu, 0.3)).gflops;
  const pictures = recipe.batch * (recipe.accumulate ?? 1);
  console.error(
    `${source.count} pictures, ${source.identities.length} identities, ${trainer.stepsPerEpoch} steps an epoch, ${trainer.steps} in all`,
  );
  const bar = new TrainProgress({
    steps: trainer.steps,
    first: trainer.step,
    pictures,
    flops: trainer.flops,
    peak,
  });
  const { info } = gpu.adapter;
  const card: CardInput = {
    title: `${flags.net}, ${recipe.description.input!.height} px, ${describeObjective(recipe)}`,
    recipe,
    command: repeatable(process.argv.slice(2)),
    data: r.sets.map(({ pack, teacher }, i) => ({
      name: path.basename(path.resolve(flags.data[i])).replace(/(-[0-9a-f]{8})?\.pack$/, ''),
      pictures: pack.index.names.length,
      identities: new Set(pack.index.identities.filter((name) => name !== null)).size,
      teacher: teacher && path.basename(teacher.file),
    })),
    steps: trainer.steps,
    hours: 0,
    device: info.description || info.device || info.vendor,
    results: [],
  };
  let best: ValidationResult | undefined;
  let seconds = Number(log.records.findLast((record) => typeof record.elapsed === 'number')?.elapsed ?? 0);
  const save = async (name: string) => {
    const state = await trainer.weights();
    const weights = { state, metadata: metadataOf(card) };
    await saveWeights(path.join(flags.out, name), weights);
    return weights;
  };
  try {
    await trainer.run({
      signal,
      onStep: (report) => {
        seconds += report.seconds;
        bar.step(report);
        if (report.step % flags.logEvery === 0 || report.step === trainer.steps)
          log.write({ ...report, elapsed: Math.round(seconds) });
      },
      onEpoch: async (epoch, step) => {
        const weights = await save('weights.safetensors');
        if (!validation || (epoch % flags.valEvery !== 0 && step !== trainer.steps)) return;
        const result = await validation.run(gpu, weights);
        log.write({ step, validation: result });
        bar.note(
          `epoch ${epoch}: ${(100 * result.accuracy).toFixed(2)} ± ${(100 * result.std).toFixed(2)} % of ${result.pairs} pairs, AUC ${result.auc.toFixed(4)}, TAR at FAR 1 %: ${Number.isNaN(result.tar) ? '–' : `${(100 * result.tar).toFixed(1)} %`}`,
        );
        if (!best || result.accuracy > best.accuracy) {
          best = result;
          await saveWeights(path.join(flags.out, 'best.safetensors'), weights);
        }
      },
    });
  } finally {
    bar.stop();
  }
  await save('weights.safetensors');
  const done = trainer.step >= trainer.steps;
  const results = resultsOf(log, best);
  const input = { ...card, steps: trainer.step, hours: seconds / 3600, results };
  await writeAtomically(path.join(flags.out, 'weights.md'), modelCard(input));
  const settings = [
    ['command', card.command],
    ['net', card.title],
    ['data', card.data.map(({ name, pictures: n }) => `${name} (${n})`).join(', ')],
    ['device', card.device],
    ['steps', `${trainer.step} of ${trainer.steps}, ${pictures} pictures each`],
    ['time', duration(seconds)],
    ['optimiser', JSON.stringify(recipe.optimizer)],
    ['augmentation', flags.augment],
  ] as const;
  const [first] = results;
  const headline = first && { value: first[1], about: first[0] };
  const report = { title: card.title, headline, charts: trainingCharts(log.records), settings };
  await writeAtomically(path.join(flags.out, 'report.html'), renderTrainingReport(report));
  console.error(
    `${done ? 'done' : `stopped at step ${trainer.step} of ${trainer.steps} (go on with --resume)`}: ${path.join(flags.out, 'weights.safetensors')}, report.html and log.jsonl beside it`,
  );
}

async function openValidation(flags: Flags, session: Session): Promise<Validation | undefined> {
  if (!flags.val || !flags.valData) return undefined;
  const isLfw = flags.val === 'lfw';
  const images = path.join(flags.valData, 'images');
  const hasImages = isLfw && (await exists(images));
  const landmarks = path.join(flags.valData, 'mtcnn_landmarks.csv');
  let bar: ReturnType<typeof steadyProgress> | undefined;
  try {
    return await Validation.open({
      pairs: isLfw ? path.join(flags.valData, 'pairs.txt') : flags.val,
      data: hasImages ? images : flags.valData,
      landmarks: flags.valLandmarks ?? (isLfw && (await exists(landmarks)) ? landmarks : undefined),
      limit: flags.valLimit,
      side: SIDE,
      align: (picture) => alignMain(session, picture),
      onStart: (n) => {
        bar = steadyProgress(n, 'pictures to validate on');
      },
      onPicture: (id) => bar?.step(id),
    });
  } finally {
    bar?.stop();
  }
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );

function describeObjective({ objective: { identity, distill } }: Recipe): string {
  const parts: string[] = [];
  if (identity) {
    const { m1, m2, m3, scale } = identity.margin;
    parts.push(`margin ${m1}, ${m2}, ${m3} at scale ${scale}`);
  }
  if (distill) parts.push('from a teacher');
  return parts.join(' and ');
}

/** The command line as one would type it again. */
const repeatable = (argv: readonly string[]): string =>
  `wfr ${argv
    .filter((word) => word !== '--resume')
    .map((word) => (/^[\w./,=:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ')}`;

function resultsOf(log: TrainingLog, best: ValidationResult | undefined): [string, string][] {
  const results: [string, string][] = [];
  const last = log.records.findLast((r) => r.validation)?.validation as ValidationResult | undefined;
  const percent = (v: number) => `${(100 * v).toFixed(2)} %`;
  if (last) results.push([`verification accuracy, ${last.pairs} pairs, at the end`, percent(last.accuracy)]);
  if (best) results.push(['highest of this sitting', percent(best.accuracy)]);
  const losses = log.records.flatMap((r) => (typeof r.loss === 'number' ? [r.loss] : [])).slice(-20);
  if (losses.length > 0)
    results.push([
      'loss, mean of the last lines',
      (losses.reduce((a, b) => a + b) / losses.length).toFixed(4),
    ]);
  return results;
}
