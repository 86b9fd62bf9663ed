import type { Chart, Series } from './report.js';

/** A line of a run's log. */
interface Line {
  step: number;
  [key: string]: unknown;
}

/** Curves of a run out of its log: losses, accuracy on the batch, learning rate, validation, speed. */
export function trainingCharts(records: readonly Line[]): Chart[] {
  const series = (name: string, value: (r: Line) => unknown): Series => ({
    name,
    points: records.flatMap((r) => {
      const v = value(r);
      return typeof v === 'number' ? [[r.step, v] as const] : [];
    }),
  });
  const validation = (key: string) => (r: Line) =>
    (r.validation as Record<string, unknown> | undefined)?.[key];
  return [
    { title: 'loss', series: [series('loss', (r) => r.loss)] },
    {
      title: 'parts of the loss',
      series: [
        series('identities: cross-entropy', (r) => r.identityLoss),
        series('teacher: 1 − cosine', (r) => r.distance),
        series('teacher: similarities', (r) => r.relation),
      ].filter(({ points }) => points.length > 0),
    },
    { title: 'accuracy on the batch', percent: true, series: [series('accuracy', (r) => r.accuracy)] },
    { title: 'verification accuracy', percent: true, series: [series('accuracy', validation('accuracy'))] },
    { title: 'learning rate', series: [series('rate', (r) => r.learningRate)] },
    { title: 'seconds a step', series: [series('seconds', (r) => r.seconds)] },
  ];
}
