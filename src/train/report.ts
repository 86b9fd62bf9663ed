/** A self-contained HTML page about a training run: no script, no network. */
import { type Axis, escapeHtml, frame, linearTicks, px, py } from '../face/verification/charts.js';
import { STYLE } from '../face/verification/report.js';

/** One curve; x is the step. */
export interface Series {
  name: string;
  points: readonly (readonly [step: number, value: number])[];
}

export interface Chart {
  title: string;
  /** Curves over the same axes, at most four. */
  series: readonly Series[];
  /** Values are shares, shown in per cent. */
  percent?: boolean;
}

export interface TrainingReport {
  title: string;
  /** The figure that matters, large: `loss 0.012`, with a line about it. */
  headline?: { value: string; about: string };
  charts: readonly Chart[];
  /** What was trained on what, and how: shown as a list of terms. */
  settings: readonly (readonly [term: string, text: string])[];
  notes?: readonly { summary: string; items: readonly string[] }[];
}

/** Points of a curve drawn at most: more than the chart has pixels show nothing more. */
const MOST_POINTS = 400;

export function renderTrainingReport({ title, headline, charts, settings, notes }: TrainingReport): string {
  const figures = charts
    .filter(({ series }) => series.some(({ points }) => points.length > 0))
    .map((chart) => `<figure>${lineChart(chart)}<figcaption>${caption(chart)}</figcaption></figure>`);
  const lists = (notes ?? []).map(
    ({ summary, items }) =>
      `<details><summary>${escapeHtml(summary)}</summary><ul>${items.map((i) => `<li>${escapeHtml(i)}</li>`).join('')}</ul></details>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title><style>${STYLE}${LINES}</style></head><body><main>
<header><h1>${escapeHtml(title)}</h1>
${headline ? `<p class="big"><strong>${escapeHtml(headline.value)}</strong> <span>${escapeHtml(headline.about)}</span></p>` : ''}
<dl>${settings.map(([term, text]) => `<div><dt>${escapeHtml(term)}</dt><dd>${escapeHtml(text)}</dd></div>`).join('')}</dl></header>
<section class="charts">${figures.join('\n')}</section>
${lists.length > 0 ? `<section><h2>Remarks</h2>${lists.join('')}</section>` : ''}
</main></body></html>
`;
}

function caption({ title, series }: Chart): string {
  if (series.length === 1) return escapeHtml(title);
  const keys = series.map(({ name }, i) => `<span class="key c${i}"></span>${escapeHtml(name)}`);
  return `${escapeHtml(title)}: ${keys.join(' ')}`;
}

/** Curves over the steps, thinned by averaging neighbours; values that are no numbers are left out. */
export function lineChart({ title, series, percent }: Chart): string {
  const curves = series.map(({ points }) => thin(points.filter(([, v]) => Number.isFinite(v))));
  const all = curves.flat();
  const steps = all.map(([step]) => step);
  const values = all.map(([, value]) => value);
  const [first, last] = [Math.min(...steps), Math.max(...steps, Math.min(...steps) + 1)];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && low < 0.6 * high) low = 0;
  if (high <= low) high = low + (Math.abs(low) || 1);
  const unit = percent ? 100 : 1;
  const digits = Math.max(0, 2 - Math.floor(Math.log10((high - low) * unit)));
  const x: Axis = {
    at: (step) => (step - first) / (last - first),
    ticks: linearTicks(first, last, 0).filter(({ value }) => Number.isInteger(value)),
    title: 'step',
  };
  const y: Axis = {
    at: (value) => (value - low) / (high - low),
    ticks: linearTicks(low * unit, high * unit, Math.min(digits, 8)).map(({ value, label }) => ({
      value: value / unit,
      label: percent ? `${label} %` : label,
    })),
    title,
  };
  const paths = curves.map(
    (points, i) =>
      `<path class="line c${i}" d="${points.map(([step, value], k) => `${k === 0 ? 'M' : 'L'}${px(x.at(step)).toFixed(1)} ${py(y.at(value)).toFixed(1)}`).join('')}"/>`,
  );
  return frame(x, y, title, paths.join(''));
}

function thin(points: Series['points']): Series['points'] {
  const group = Math.ceil(points.length / MOST_POINTS);
  if (group <= 1) return points;
  return Array.from({ length: Math.ceil(points.length / group) }, (_, i) => {
    const part = points.slice(i * group, (i + 1) * group);
    const mean = (k: 0 | 1) => part.reduce((sum, p) => sum + p[k], 0) / part.length;
    return [mean(0), mean(1)] as const;
  });
}

const LINES = `
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.line.c0{stroke:var(--mark)}.line.c1{stroke:var(--diff)}.line.c2{stroke:var(--same)}.line.c3{stroke:var(--dim)}
.key.c0{background:var(--mark)}.key.c1{background:var(--diff)}.key.c2{background:var(--same)}.key.c3{background:var(--dim)}`;
