import { type MtcnnNet, NET_LOSS } from '../../nets/mtcnn.js';
import { type Chart, renderTrainingReport } from '../report.js';
import { FALSE_POSITIVES } from './evaluate.js';
import type { CascadeFigures } from './validate.js';

/** A line of a net's log. */
interface LogRecord {
  step: number;
  [key: string]: unknown;
}

export const TITLES: Record<MtcnnNet, string> = { pnet: 'P-Net', rnet: 'R-Net', onet: 'O-Net' };

/** The run as a page: curves by net and task, the figures on the held-out pictures, settings. */
export function renderDetectorReport(
  records: Record<MtcnnNet, readonly LogRecord[]>,
  figures: CascadeFigures | undefined,
  options: { seed: number; stages: Record<MtcnnNet, { batch: number; steps: number; rate: number }> },
  data: {
    pictures: readonly unknown[];
    heldOut: readonly unknown[];
    listed: readonly unknown[];
    negatives: readonly unknown[];
  },
): string {
  const nets = Object.keys(TITLES) as MtcnnNet[];
  const curve = (net: MtcnnNet, name: string, field: string) => ({
    name,
    points: records[net]
      .filter((r) => typeof r[field] === 'number')
      .map((r) => [r.step, r[field] as number] as const),
  });
  const charts = nets.flatMap((net): Chart[] => [
    {
      title: `${TITLES[net]}, loss by task`,
      series: [
        curve(net, 'class', 'classLoss'),
        curve(net, 'box', 'boxLoss'),
        ...(net === 'onet' ? [curve(net, 'points', 'pointsLoss')] : []),
      ],
    },
    {
      title: `${TITLES[net]}, samples classified rightly`,
      series: [curve(net, 'accuracy', 'accuracy')],
      percent: true,
    },
  ]);
  const percent = (v: number) => `${(100 * v).toFixed(1)} %`;
  const held = Object.entries(figures?.detections ?? {}).map(([size, f]): [string, string] => [
    `faces from ${size} px (${f.faces})`,
    `AP ${percent(f.averagePrecision)}, recall ${f.recallAt.map((r, i) => `${percent(r.recall)} at ${FALSE_POSITIVES[i]}`).join(', ')} false positives a picture`,
  ]);
  const best = figures?.detections?.[40];
  return renderTrainingReport({
    title: 'Training of a face detector (MTCNN)',
    headline: best && {
      value: `AP ${percent(best.averagePrecision)}`,
      about: `on ${best.faces} held-out faces of 40 px and more (IoU 0.5)`,
    },
    charts,
    settings: [
      [
        'pictures',
        `${data.pictures.length} with boxes, ${data.listed.length} lone faces with points, ${data.negatives.length} backgrounds, ${data.heldOut.length} held out`,
      ],
      ...nets.map((n): [string, string] => {
        const { batch, steps, rate } = options.stages[n];
        const { classWeight, boxWeight, pointsWeight } = NET_LOSS[n];
        return [
          TITLES[n],
          `${steps} steps of ${batch}, AdamW up to ${rate}, losses ${classWeight} : ${boxWeight} : ${pointsWeight}`,
        ];
      }),
      ['seed', String(options.seed)],
      ...held,
    ],
  });
}
