// The run itself: steps, log, weights after each epoch, accuracy on pairs.
import type { Gpu } from '../../gpu/gpu.js';
import { measureFmaRate } from '../../kernels/probe/measure.js';
import { metadataOf } from '../../train/card.js';
import type { PackedSet, PackedSource } from '../../train/data/packed_source.node.js';
import { TrainingLog } from '../../train/log.node.js';
import type { Trainer } from '../../train/trainer.js';
import type { ValidationList, ValidationResult } from '../../train/validation.node.js';
import { saveWeights } from '../../weights/save.node.js';
import type { Session } from '../session.js';
import { openValidation } from './data.js';
import type { RunFolder } from './folder.js';
import type { TrainFlags } from './options.js';
import { TrainProgress } from './progress.js';
import { cardOf, writeReports } from './report.js';

export interface Running {
  session: Session;
  gpu: Gpu;
  folder: RunFolder;
  sets: readonly PackedSet[];
  source: PackedSource;
  trainer: Trainer;
  validation?: ValidationList;
  signal: AbortSignal;
}

export async function runTrainer(flags: TrainFlags, r: Running): Promise<void> {
  const { gpu, folder, trainer, source, sets, signal } = r;
  const { recipe } = trainer;
  const validation = await openValidation(r.validation, flags, r.session, signal);
  const log = await TrainingLog.open(folder.in('log.jsonl'), trainer.step);
  const peak = (await measureFmaRate(gpu, 0.3)).gflops;
  console.error(
    `${source.count} pictures, ${source.identities.length} identities, ${Number(trainer.stepsPerEpoch.toFixed(2))} steps an epoch, ${trainer.steps} in all`,
  );
  const bar = new TrainProgress({
    steps: trainer.steps,
    first: trainer.step,
    pictures: recipe.batch * (recipe.accumulate ?? 1),
    flops: trainer.flops,
    peak,
  });
  const card = cardOf(flags, gpu, trainer, sets);
  let best = bestOf(log);
  let seconds = Number(log.records.findLast((record) => typeof record.elapsed === 'number')?.elapsed ?? 0);
  const save = async (name: string) => {
    const weights = { state: await trainer.weights(), metadata: metadataOf(card) };
    await saveWeights(folder.in(name), weights);
    return weights;
  };
  const measure = async (epoch: number, step: number) => {
    const weights = await save('weights.safetensors');
    if (!validation || !(step === trainer.steps || isDue(trainer, step, flags.valEvery))) return;
    const result = await validation.run(gpu, weights);
    // Accuracy on other pairs, of a sitting with another --val, says nothing here. Written before the log says so: a resumed
    // run takes the best from there.
    if (!best || !isOfSamePairs(best, result) || result.accuracy > best.accuracy) {
      best = result;
      await saveWeights(folder.in('best.safetensors'), weights);
    }
    log.write({ step, validation: result });
    bar.note(`epoch ${epoch}: ${describeValidation(result)}`);
  };
  try {
    // A sitting that ended while it measured had its checkpoint already.
    if (isUnmeasured(trainer, log)) await measure(trainer.epochOf(trainer.step), trainer.step);
    await trainer.run({
      signal,
      onStep: (report) => {
        seconds += report.seconds;
        bar.step(report);
        if (report.step % flags.logEvery === 0 || report.step === trainer.steps)
          log.write({ ...report, elapsed: Math.round(seconds) });
      },
      onEpoch: measure,
    });
  } finally {
    bar.stop();
  }
  await save('weights.safetensors');
  await writeReports(flags, { folder, card, trainer, sets, log, best, seconds });
  const isDone = trainer.step >= trainer.steps;
  console.error(
    `${isDone ? 'done' : `stopped at step ${trainer.step} of ${trainer.steps} (go on with --resume)`}: ${folder.in('weights.safetensors')}, report.html and log.jsonl beside it`,
  );
}

/** Whether an epoch that is to be measured ends with a step. A step of many batches may end several. */
function isDue(trainer: Trainer, step: number, every: number): boolean {
  const measured = (s: number) => Math.floor(trainer.epochsAfter(s) / every);
  return measured(step) > measured(step - 1);
}

function isUnmeasured(trainer: Trainer, { records }: TrainingLog): boolean {
  const { step, steps } = trainer;
  const isEnd = step > 0 && (step === steps || trainer.endsEpoch(step));
  return isEnd && !records.some((record) => record.step === step && record.validation);
}

/** The highest accuracy on the pairs last measured on that the log knows of, from this sitting or those before. */
export function bestOf({ records }: Pick<TrainingLog, 'records'>): ValidationResult | undefined {
  const results = records.flatMap(({ validation }) => (validation ? [validation as ValidationResult] : []));
  // Other pairs in between began anew: what lies before them is not in best.safetensors.
  const last = results.at(-1);
  const others = last ? results.findLastIndex((result) => !isOfSamePairs(result, last)) : -1;
  return results
    .slice(others + 1)
    .reduce<ValidationResult | undefined>(
      (best, result) => (!best || result.accuracy > best.accuracy ? result : best),
      undefined,
    );
}

/** By their number only where an earlier version measured. */
const isOfSamePairs = (a: ValidationResult, b: ValidationResult): boolean =>
  a.pairs === b.pairs && (a.list === undefined || b.list === undefined || a.list === b.list);

function describeValidation({ accuracy, std, pairs, auc, tar }: ValidationResult): string {
  const atOne = Number.isFinite(tar) ? `${(100 * tar).toFixed(1)} %` : '–';
  return `${(100 * accuracy).toFixed(2)} ± ${(100 * std).toFixed(2)} % of ${pairs} pairs, AUC ${auc.toFixed(4)}, TAR at FAR 1 %: ${atOne}`;
}
