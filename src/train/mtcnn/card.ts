import { type MtcnnNet, NET_LOSS } from '../../nets/mtcnn.js';
import type { DetectorData } from './data.node.js';
import { TITLES } from './report.js';
import type { StageOptions } from './stage.js';
import type { CascadeFigures } from './validate.js';

export interface DetectorCardInput {
  title: string;
  /** The command line, as one would repeat it. */
  command: string;
  /** What to call the data: folders and lists. */
  sources: readonly string[];
  data: DetectorData;
  /** Held-out pictures that were looked at. */
  validated: number;
  seed: number;
  stages: Record<MtcnnNet, Omit<StageOptions, 'seed'>>;
  device: string;
  figures?: CascadeFigures;
}

/** A detector's model card in Markdown: what the weights are, how they came to be, and what to beware of. */
export function detectorCard(input: DetectorCardInput): string {
  const { title, command, sources, data, validated, seed, stages, device, figures } = input;
  const nets = (Object.keys(TITLES) as MtcnnNet[]).map((net) => {
    const { batch, steps, rate, pointsWeight = NET_LOSS[net].pointsWeight } = stages[net];
    const { classWeight, boxWeight } = NET_LOSS[net];
    const losses = [classWeight, boxWeight, ...(net === 'onet' ? [pointsWeight] : [])].join(' : ');
    return `| ${TITLES[net]} | ${steps} of ${batch} | ${rate} | ${losses} |`;
  });
  const percent = (v: number) => `${(100 * v).toFixed(1)} %`;
  const found = Object.entries(figures?.detections ?? {}).map(
    ([size, f]) =>
      `| from ${size} px | ${f.faces} | ${percent(f.averagePrecision)} | ${f.recallAt.map((r) => `${percent(r.recall)} at ${r.falsePositives}`).join(', ')} |`,
  );
  return `# ${title}

A face detector: MTCNN's P-, R- and O-Net (Zhang et al. 2016).

## Recipe

\`\`\`sh
${command}
\`\`\`

| net | steps | highest rate | losses class : box : points |
|---|---|---|---|
${nets.join('\n')}

AdamW, seed ${seed}, on ${device}. Nets that an earlier run with the same --out had finished, or that began with --init, owe that to
other commands too.

## Data

${data.pictures.length} pictures with boxes, ${data.listed.length} lone faces with points, ${data.negatives.length} backgrounds, from ${sources.join(', ')}. The terms of
the data sets apply to what is made of them: check whether they allow your use.

## Figures

${
  found.length > 0
    ? `On ${validated} held-out pictures, intersection over union 0.5:

| faces | number | average precision | recall at false positives a picture |
|---|---|---|---|
${found.join('\n')}`
    : 'Nothing was measured during the run.'
}

## Weaknesses

What the data shows little of is missed more often: measure on pictures like those it will see.
`;
}
