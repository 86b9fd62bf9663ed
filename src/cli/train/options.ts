import { type Command, Option } from 'commander';
import type { PackEncoding } from '../../train/data/pack.node.js';
import { TEACHER_MEAN } from '../../train/data/teacher.js';
import { SCHEDULES } from '../../train/schedule.js';
import { above0, collect, integerIn, numberIn } from '../options.js';
import type { SessionFlags } from '../session.js';
import { LOSSES, NETS, type RecipeFlags } from './recipe.js';

export interface TrainFlags extends Omit<SessionFlags, 'net' | 'precision'>, RecipeFlags {
  data: string[];
  distill: string[];
  teacherMean: number;
  out: string;
  cache?: string;
  pack?: PackEncoding;
  align: boolean;
  augment: string;
  threads: number;
  resume?: boolean;
  init?: string;
  firstSize?: number;
  firstEpochs?: number;
  firstLr?: number;
  /** Of the first of two runs: the second, so that what would stop that stops this. */
  then?: TrainFlags;
  val?: string;
  valData?: string;
  valLandmarks?: string;
  valLimit: number;
  valEvery: number;
  checkpointEvery: number;
  keep: number;
  logEvery: number;
  memory?: number;
  detectAnomaly?: boolean;
}

/** Side of the packed pictures: the template's. */
export const SIDE = 112;

export function trainOptions(command: Command): Command {
  const share = numberIn(0, 1);
  const count = integerIn(1, 1_000_000_000);
  return command
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
    .option(
      '--first-size <px>',
      'train at this size first (in first/ in --out), then from there at --size: a curriculum by resolution',
      integerIn(32, 112),
    )
    .option(
      '--first-epochs <n>',
      'times that every picture is seen at --first-size (default: --epochs)',
      above0,
    )
    .option('--first-lr <rate>', 'highest learning rate at --first-size (default: --lr)', above0)
    .option('--batch <n>', 'pictures a step', integerIn(2, 4096), 64)
    .option('--epochs <n>', 'times that every picture is seen', above0, 20)
    .option(
      '--lr <rate>',
      'highest learning rate (default: 0.1 × batch / 1024 for sgd, 0.001 for adamw)',
      above0,
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
    .option(
      '--margin <m>',
      'default: 0.5 arcface (radians, below π), 0.4 cosface (0 to 1), 1,0.3,0.2 combined',
    )
    .option('--scale <s>', 'radius of the hypersphere', above0, 64)
    .option('--exact-gradient', "the margin's true gradient, not the straight-through one")
    .option('--gamma <g>', 'focal loss', numberIn(0, 10), 0)
    .option(
      '--sample-rate <r>',
      'share of the identities that a step looks at (Partial FC)',
      numberIn(1e-6, 1),
      1,
    )
    .option('--identity-weight <w>', 'factor on the loss over identities', above0, 1)
    .option(
      '--teacher-mean <share>',
      "share of the teacher's mean that is taken from its embeddings before they are normalised",
      numberIn(0, 1),
      TEACHER_MEAN,
    )
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
    .option('--resume', 'continue from the last checkpoint in --out: same options, same data')
    .option(
      '--val <pairs>',
      "measure verification accuracy: a list of pairs, or lfw for --val-data's pairs.txt",
    )
    .option('--val-data <dir>', 'pictures of the pairs')
    .option('--val-landmarks <file>', 'CSV of five points a picture, instead of detecting faces')
    .option('--val-limit <n>', 'use about so many pairs', integerIn(4, 10_000_000), 1000)
    .option('--val-every <epochs>', 'epochs between two measurements', integerIn(1, 1000), 1)
    .option('--seed <n>', 'of first weights, order and augmentation', integerIn(0, 2 ** 31 - 1), 1)
    .option(
      '--checkpoint-every <steps>',
      'steps between checkpoints; each epoch ends with one too',
      count,
      500,
    )
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
      above0,
    )
    .option(
      '--detect-anomaly',
      'watch every layer at every step: stops at the first value that is not finite and names layer and pictures; slower',
    );
}
