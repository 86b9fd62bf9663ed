import type { Command } from 'commander';
import { WfrError } from '../../gpu/errors.js';
import type { CheckpointStore } from '../../train/checkpoint.node.js';
import { parseAugmentation } from '../../train/data/augment.js';
import { type PackedSet, PackedSource } from '../../train/data/packed_source.node.js';
import { Trainer } from '../../train/trainer.js';
import type { Weights } from '../../weights/convert.js';
import { openWeights } from '../../weights/save.node.js';
import { INTERRUPTED, interruptible } from '../interrupt.js';
import { examples, gpuOptions, weightsOption } from '../options.js';
import { type Session, withSession } from '../session.js';
import { stagesOf } from '../train/curriculum.js';
import { findData, packData } from '../train/data.js';
import { RunFolder } from '../train/folder.js';
import { checkMemory } from '../train/memory.js';
import { type TrainFlags, trainOptions } from '../train/options.js';
import { recipeOf } from '../train/recipe.js';
import { runTrainer } from '../train/run.js';

export function define(command: Command): void {
  gpuOptions(weightsOption(trainOptions(command))).action(train);
  examples(command, [
    ['wfr train --data people/', 'MobileFaceNet with ArcFace on a folder for each person'],
    ['wfr train --data people/ --val lfw --val-data lfw/', 'with accuracy on pairs after each epoch'],
    ['wfr train --data people/ --init base.safetensors --lr 0.001 --epochs 5', 'fine-tuning'],
    [
      'wfr train --data faces/ --distill teacher.npy --optimizer adamw --schedule one-cycle',
      'from a teacher',
    ],
    [
      'wfr train --data people/ --first-size 56 --first-epochs 15 --epochs 5',
      'most of it at half the size, a quarter of the work',
    ],
    ['wfr train --data people/ --resume', 'go on after an interruption'],
    ['wfr train mtcnn --help', 'the detector has a command of its own'],
  ]);
}

async function train(flags: TrainFlags): Promise<void> {
  // `--net` and `--precision` of a session are about recognising; here they say what to train and how.
  const { net: _net, precision: _precision, ...sessionFlags } = flags;
  await withSession(sessionFlags, (session) =>
    interruptible(async (signal) => {
      for await (const stage of stagesOf(flags)) {
        await run(stage, session, signal);
        if (signal.aborted) return;
      }
    }),
  );
}

async function run(flags: TrainFlags, session: Session, signal: AbortSignal): Promise<void> {
  // All that can be refused by looking at it, before anything is written.
  const augmentation = parseAugmentation(flags.augment);
  const found = await findData(flags);
  const init = flags.init === undefined ? undefined : await openWeights([flags.init]);
  const folder = await RunFolder.open(flags.out);
  try {
    const checkpoints = await folder.checkpoints(flags.keep, flags.resume ?? false);
    const sets = await packData(found.sets, flags, session, signal);
    const recipe = recipeOf(flags, dataOf(sets));
    const { mean, scale } = recipe.description.preprocessing!;
    const source = new PackedSource(sets, {
      batch: recipe.batch,
      size: recipe.size,
      seed: recipe.seed,
      augmentation,
      normalisation: { mean, scale },
      teacherMean: flags.teacherMean,
      threads: flags.threads,
    });
    let trainer: Trainer | undefined;
    try {
      const gpu = await session.gpu();
      const limit = flags.memory && flags.memory * 1e9;
      checkMemory(gpu, recipe, source, limit);
      if (flags.then) checkMemory(gpu, recipeOf(flags.then, dataOf(sets)), source, limit);
      trainer = await Trainer.create(gpu, recipe, source, {
        init: init?.state,
        initName: init && nameOf(flags.init!, init),
        checkpoints,
        checkpointEvery: flags.checkpointEvery,
        detectAnomaly: flags.detectAnomaly,
      });
      if (trainer.missing.length > 0)
        console.error(`${flags.init} has no ${shortList(trainer.missing)}: begun at random.`);
      if (flags.resume) await resume(trainer, checkpoints);
      const { validation } = found;
      await runTrainer(flags, { session, gpu, folder, sets, source, trainer, validation, signal });
    } finally {
      trainer?.destroy();
      await source.close();
    }
    // As every command: one bad picture is reported, the rest go on, and the status tells.
    if (sets.some(({ pack }) => pack.index.skipped.length > 0)) process.exitCode = 1;
    // As every command that Ctrl-C ends, though the run is whole and can be resumed.
    if (signal.aborted) process.exitCode = INTERRUPTED;
  } finally {
    await folder.close();
  }
}

function dataOf(sets: readonly PackedSet[]): { identities: number; isTaught: boolean } {
  const identities = new Set(sets.flatMap(({ pack }) => pack.index.identities));
  identities.delete(null);
  return { identities: identities.size, isTaught: sets.some(({ teacher }) => teacher !== undefined) };
}

const nameOf = (file: string, { metadata }: Weights): string => {
  const title = metadata.title ?? metadata.net;
  return title ? `${file} (${title})` : file;
};

const shortList = (names: readonly string[]): string =>
  names.length > 4 ? `${names.slice(0, 4).join(', ')} and ${names.length - 4} more` : names.join(', ');

async function resume(trainer: Trainer, checkpoints: CheckpointStore): Promise<void> {
  const damaged: string[] = [];
  const last = await checkpoints.latest((message) => damaged.push(message));
  if (!last && damaged.length > 0)
    throw new WfrError(
      `None of the checkpoints in ${checkpoints.folder} is whole, so there is nothing to resume:\n  ${damaged.join('\n  ')}\nTo begin anew, give another --out, or remove that folder and leave out --resume. weights.safetensors of the last epoch, where there is one, can be begun with (--init).`,
    );
  for (const message of damaged) console.error(`${message}; it is passed over`);
  if (!last) {
    console.error(`${checkpoints.folder} holds no checkpoint: beginning at step 0`);
    return;
  }
  if (!trainer.restore(last))
    console.error(
      'The checkpoint is of an earlier version and does not say what data and augmentation it was trained on: make sure that they are the same.',
    );
  console.error(`resumed at step ${trainer.step} of ${trainer.steps}`);
}
