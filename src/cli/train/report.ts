// What a run leaves for people to read: the model card beside the weights, and report.html.
import path from 'node:path';
import type { Gpu } from '../../gpu/gpu.js';
import { writeAtomically } from '../../media/files.node.js';
import { type CardInput, modelCard } from '../../train/card.js';
import { trainingCharts } from '../../train/charts.js';
import type { PackedSet } from '../../train/data/packed_source.node.js';
import type { TrainingLog } from '../../train/log.node.js';
import type { Recipe } from '../../train/recipe.js';
import { renderTrainingReport } from '../../train/report.js';
import type { Trainer } from '../../train/trainer.js';
import type { ValidationResult } from '../../train/validation.node.js';
import type { RunFolder } from './folder.js';
import type { TrainFlags } from './options.js';
import { duration } from './progress.js';

/** The card as it stands when a run begins. */
export function cardOf(flags: TrainFlags, gpu: Gpu, trainer: Trainer, sets: readonly PackedSet[]): CardInput {
  const { recipe } = trainer;
  return {
    title: `${flags.net}, ${recipe.description.input!.height} px, ${describeObjective(recipe)}`,
    recipe,
    command: repeatable(process.argv.slice(2)),
    data: sets.map(({ pack, teacher }, i) => ({
      name: path.basename(path.resolve(flags.data[i])).replace(/(-[0-9a-f]{8})?\.pack$/, ''),
      pictures: pack.index.names.length,
      identities: new Set(pack.index.identities.filter((name) => name !== null)).size,
      teacher: teacher && path.basename(teacher.file),
    })),
    steps: trainer.steps,
    hours: 0,
    device: deviceName(gpu),
    results: [],
  };
}

export interface Outcome {
  folder: RunFolder;
  card: CardInput;
  trainer: Trainer;
  sets: readonly PackedSet[];
  log: TrainingLog;
  best: ValidationResult | undefined;
  seconds: number;
}

/** Writes weights.md and report.html. */
export async function writeReports(flags: TrainFlags, outcome: Outcome): Promise<void> {
  const { folder, card, trainer, sets, log, best, seconds } = outcome;
  const { recipe } = trainer;
  const results = resultsOf(log, best);
  const input = { ...card, steps: trainer.step, hours: seconds / 3600, results };
  await writeAtomically(folder.in('weights.md'), modelCard(input));
  const pictures = recipe.batch * (recipe.accumulate ?? 1);
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
  const report = {
    title: card.title,
    headline: first && { value: first[1], about: first[0] },
    charts: trainingCharts(log.records),
    settings,
    notes: notesOf(card, sets),
  };
  await writeAtomically(folder.in('report.html'), renderTrainingReport(report));
}

/** The pictures left out of each set. */
function notesOf(card: CardInput, sets: readonly PackedSet[]) {
  return sets.flatMap(({ pack }, i) => {
    const { skipped, listed } = pack.index;
    if (skipped.length === 0) return [];
    const summary = `${card.data[i].name}: ${skipped.length} of ${listed} pictures were left out`;
    return [{ summary, items: skipped.map(([name, reason]) => `${name}: ${reason}`) }];
  });
}

function describeObjective({ objective: { identity, distill } }: Recipe): string {
  const parts: string[] = [];
  if (identity) {
    const { m1, m2, m3, scale } = identity.margin;
    parts.push(`margin ${m1}, ${m2}, ${m3} at scale ${scale}`);
  }
  if (distill) parts.push('from a teacher');
  return parts.join(' and ');
}

/** The adapter's name for a card. */
export function deviceName({ adapter: { info } }: Gpu): string {
  return info.description || info.device || info.vendor;
}

/** The command line as one would type it again. */
export const repeatable = (argv: readonly string[]): string =>
  `wfr ${argv
    .filter((word) => word !== '--resume')
    .map((word) => (/^[\w./,=:-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ')}`;

function resultsOf(log: TrainingLog, best: ValidationResult | undefined): [string, string][] {
  const results: [string, string][] = [];
  const last = log.records.findLast((r) => r.validation)?.validation as ValidationResult | undefined;
  const percent = (v: number) => `${(100 * v).toFixed(2)} %`;
  if (last) results.push([`verification accuracy, ${last.pairs} pairs, at the end`, percent(last.accuracy)]);
  if (best) results.push(['highest', percent(best.accuracy)]);
  const losses = log.records.flatMap((r) => (typeof r.loss === 'number' ? [r.loss] : [])).slice(-20);
  if (losses.length > 0)
    results.push([
      'loss, mean of the last lines',
      (losses.reduce((a, b) => a + b) / losses.length).toFixed(4),
    ]);
  return results;
}
