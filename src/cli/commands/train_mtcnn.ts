import path from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { requireFolder, writeAtomically } from '../../media/files.node.js';
import { detectorCard } from '../../train/mtcnn/card.js';
import { findDetectorData } from '../../train/mtcnn/data.node.js';
import { NETS, type RecipeOptions, THRESHOLDS, trainMtcnn } from '../../train/mtcnn/recipe.node.js';
import { STAGES } from '../../train/mtcnn/stage.js';
import { loadWeights } from '../../weights/load.node.js';
import { interruptible } from '../interrupt.js';
import { collect, examples, type GpuFlags, gpuOptions, integerIn, numberIn } from '../options.js';
import { withSession } from '../session.js';
import { deviceName, repeatable } from '../train/report.js';

interface Flags extends GpuFlags {
  data: string;
  points: string[];
  negatives?: string;
  heldOut?: string;
  mask?: string;
  out: string;
  seed: number;
  init?: string;
  resume?: boolean;
  minFace: number;
  steps: number[];
  batch?: number;
  rate?: number;
  pointsWeight?: number;
  saveEvery: number;
  validate?: number;
  mineEvery: number;
  mineFace: number;
  onetAfter: 'rnet' | 'pnet';
  only: string[];
  f16?: boolean;
  thresholds: readonly number[];
  title?: string;
}

const STEPS = NETS.map((net) => STAGES[net].steps);

export function define(command: Command): void {
  gpuOptions(command)
    .requiredOption(
      '--data <dir>',
      'pictures with boxes: annotations.jsonl, or WIDER FACE with its *_bbx_gt.txt',
    )
    .option('--points <list>', 'CSV or JSON of lone faces with five points; may be repeated', collect, [])
    .option('--negatives <dir>', 'pictures of backgrounds')
    .option('--mask <weights>', 'a detector whose finds in the backgrounds are left out')
    .option('--held-out <file>', 'names of the pictures to validate on (default: every tenth)')
    .option('--out <dir>', 'where everything goes', 'out/mtcnn')
    .option(
      '--init <weights>',
      'begin with these weights instead of random ones: longer training, fine-tuning',
    )
    .option('--resume', 'go on with the run in --out')
    .option('--seed <n>', 'of weights, samples and order', integerIn(0, 2 ** 31), 1)
    .option('--steps <p,r,o>', 'steps of each net', stepsOf, STEPS)
    .option('--batch <n>', 'samples a step (default: a number for each net)', integerIn(8, 4096))
    .option('--rate <n>', 'highest learning rate (default: a number for each net)', numberIn(1e-7, 1))
    .option(
      '--points-weight <n>',
      "weight of the five points in O-Net's loss, where a face is 1 (default: 16)",
      numberIn(0, 1000),
    )
    .option('--min-face <px>', 'smallest face that validation looks for', integerIn(12, 1000), 20)
    .option('--mine-every <n>', 'mine only every n-th picture', integerIn(1, 1000), 1)
    .option('--mine-face <px>', 'smallest face that mining looks for', integerIn(12, 1000), 20)
    .addOption(
      new Option(
        '--onet-after <net>',
        'whose proposals O-Net learns from: rnet, or pnet, which needs no R-Net',
      )
        .choices(['rnet', 'pnet'])
        .default('rnet'),
    )
    .option(
      '--only <net>',
      'train only pnet, rnet or onet, e.g. R- and O-Net side by side; may be repeated',
      netsOf,
      [],
    )
    .option('--validate <n>', 'held-out pictures to look at after each net (default: all)', integerIn(0, 1e6))
    .option('--save-every <n>', 'steps between checkpoints', integerIn(1, 1_000_000), 200)
    .option('--f16', 'write the weights as halves')
    .option(
      '--thresholds <p,r,o>',
      "scores from which each net's finds count, for the weights' header",
      scoresOf,
      THRESHOLDS,
    )
    .option('--title <text>', 'name of the weights, for their header')
    .action(train);
  examples(command, [
    [
      'wfr train mtcnn --data wider --points faces.csv --negatives photos',
      'P-, R- and O-Net one after the other',
    ],
    [
      'wfr train mtcnn --data wider --points faces.csv --negatives photos --resume',
      'the same, cut off before',
    ],
  ]);
}

function netsOf(text: string, before: readonly string[]): string[] {
  if (!NETS.some((net) => net === text)) throw new InvalidArgumentError(`Give one of ${NETS.join(', ')}.`);
  return collect(text, before);
}

function stepsOf(text: string): number[] {
  const steps = text.split(',').map(Number);
  if (steps.length !== 3 || !steps.every((n) => Number.isInteger(n) && n >= 1))
    throw new InvalidArgumentError(`Give three whole numbers, for P-, R- and O-Net: ${STEPS.join()}.`);
  return steps;
}

function scoresOf(text: string): number[] {
  const scores = text.split(',').map(Number);
  if (scores.length !== 3 || !scores.every((n) => n > 0 && n < 1))
    throw new InvalidArgumentError(
      `Give three numbers between 0 and 1, for P-, R- and O-Net: ${THRESHOLDS.join()}.`,
    );
  return scores;
}

async function train(flags: Flags): Promise<void> {
  await requireFolder(flags.out);
  const data = await findDetectorData(flags, note);
  const mask = flags.mask ? await loadWeights('detector', { path: flags.mask, option: '--mask' }) : undefined;
  const init = flags.init ? await loadWeights('detector', { path: flags.init, option: '--init' }) : undefined;
  const stages = Object.fromEntries(
    NETS.map((net, i) => [
      net,
      {
        batch: flags.batch ?? STAGES[net].batch,
        steps: flags.steps[i],
        rate: flags.rate ?? STAGES[net].rate,
        pointsWeight: flags.pointsWeight,
      },
    ]),
  ) as RecipeOptions['stages'];
  const { stderr } = process;
  let shown = 0;
  const status = (line: string, isLast: boolean) => {
    if (stderr.isTTY) stderr.write(`\r\x1b[K${line.slice(0, (stderr.columns ?? 120) - 1)}`);
    // Without a terminal a line now and then.
    else if (isLast || performance.now() - shown > 15_000) stderr.write(`${line}\n`);
    else return;
    shown = performance.now();
  };
  await withSession(flags, (session) =>
    interruptible(async (signal) => {
      const gpu = await session.gpu();
      const begin = performance.now();
      let piece = '';
      let since = begin;
      const { file, report, figures } = await trainMtcnn(
        gpu,
        data,
        {
          out: flags.out,
          seed: flags.seed,
          resume: flags.resume,
          stages,
          minFace: flags.minFace,
          mineEvery: flags.mineEvery,
          mineFace: flags.mineFace,
          onetAfter: flags.onetAfter,
          nets: flags.only.length > 0 ? NETS.filter((n) => flags.only.includes(n)) : undefined,
          init,
          mask,
          saveEvery: flags.saveEvery,
          validate: flags.validate,
          f16: flags.f16,
          thresholds: flags.thresholds,
          metadata: { title: flags.title },
          signal,
        },
        {
          note,
          progress(what, done, total, detail = '') {
            if (what !== piece) [piece, since] = [what, performance.now()];
            const left = ((performance.now() - since) / 1000 / Math.max(1, done)) * (total - done);
            status(`${what} ${done}/${total}, ${clock(left)} left  ${detail}`, done === total);
          },
        },
      ).catch((error: unknown) => {
        if (signal.aborted) note('what is done so far is kept: go on with --resume');
        throw error;
      });
      if (stderr.isTTY) stderr.write('\n');
      if (figures) console.log(figures.text);
      if (!file) return;
      const card = detectorCard({
        title: flags.title ?? 'mtcnn',
        command: repeatable(process.argv.slice(2)),
        sources: [flags.data, ...flags.points, flags.negatives].flatMap((p) =>
          p === undefined ? [] : [path.basename(path.resolve(p))],
        ),
        data,
        validated: data.heldOut.slice(0, flags.validate).length,
        seed: flags.seed,
        stages,
        device: deviceName(gpu),
        figures,
      });
      await writeAtomically(file.replace(/\.safetensors$/, '.md'), card);
      console.log(`${file}, its card and ${report} after ${clock((performance.now() - begin) / 1000)}`);
    }),
  );
}

function note(line: string): void {
  process.stderr.write(`${process.stderr.isTTY ? '\r\x1b[K' : ''}${line}\n`);
}

function clock(seconds: number): string {
  const s = Math.round(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}
