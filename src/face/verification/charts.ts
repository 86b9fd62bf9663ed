/** Small SVG charts for the report: no library, no script, colours by CSS variables of the page. */

/** Text for HTML and SVG. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const WIDTH = 560;
const HEIGHT = 340;
const LEFT = 72;
const RIGHT = 26;
const TOP = 14;
const BOTTOM = 46;

export interface Axis {
  /** Data to 0…1 along the axis. */
  at: (value: number) => number;
  ticks: readonly { value: number; label: string }[];
  title: string;
}

export const px = (x: number): number => LEFT + x * (WIDTH - LEFT - RIGHT);
export const py = (y: number): number => HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM);
const f = (value: number): string => value.toFixed(1);

/** Grid, ticks and titles of a chart round its content. */
export function frame(x: Axis, y: Axis, label: string, content: string): string {
  const vertical = x.ticks.map(({ value, label: text }) => {
    const at = px(x.at(value));
    return `<line class="grid" x1="${f(at)}" y1="${TOP}" x2="${f(at)}" y2="${HEIGHT - BOTTOM}"/><text x="${f(at)}" y="${HEIGHT - BOTTOM + 17}" text-anchor="middle">${escapeHtml(text)}</text>`;
  });
  const horizontal = y.ticks.map(({ value, label: text }) => {
    const at = py(y.at(value));
    return `<line class="grid" x1="${LEFT}" y1="${f(at)}" x2="${WIDTH - RIGHT}" y2="${f(at)}"/><text x="${LEFT - 8}" y="${f(at + 4)}" text-anchor="end">${escapeHtml(text)}</text>`;
  });
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(label)}">${vertical.join('')}${horizontal.join('')}
<text class="axis" x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escapeHtml(x.title)}</text>
<text class="axis" transform="translate(14 ${middle}) rotate(-90)" text-anchor="middle">${escapeHtml(y.title)}</text>
${content}</svg>`;
}

/** Up to five round steps between two numbers. */
export function linearTicks(from: number, to: number, digits: number): { value: number; label: string }[] {
  const rough = (to - from) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough)!;
  const ticks: { value: number; label: string }[] = [];
  for (let k = Math.ceil(from / step - 1e-9); k * step <= to + 1e-9; k++)
    ticks.push({ value: k * step, label: (k * step).toFixed(digits) });
  return ticks;
}

/** True accepts over false accepts, the latter on a logarithmic axis: the interesting part is at the left. */
export function rocChart(points: readonly { far: number; tar: number }[], negatives: number): string {
  const lowest = 10 ** Math.floor(Math.log10(1 / Math.max(negatives, 10)));
  const decades = Math.round(-Math.log10(lowest));
  const worst = Math.min(...points.filter((p) => p.far >= lowest).map((p) => p.tar), 1);
  const bottom = [0.99, 0.95, 0.9, 0.8, 0.5].find((b) => worst > b) ?? 0;
  const x: Axis = {
    at: (v) => 1 + Math.log10(Math.max(v, lowest)) / decades,
    ticks: Array.from({ length: decades + 1 }, (_, k) => ({
      value: 10 ** -k,
      label: k === 0 ? '100 %' : `${Number((100 * 10 ** -k).toPrecision(1))} %`,
    })),
    title: 'false accept rate',
  };
  const digits = bottom >= 0.9 ? 1 : 0;
  const y: Axis = {
    at: (v) => (Math.max(v, bottom) - bottom) / (1 - bottom),
    ticks: linearTicks(bottom * 100, 100, digits).map(({ value, label }) => ({
      value: value / 100,
      label: `${label} %`,
    })),
    title: 'true accept rate',
  };
  // A step curve: between two thresholds nothing changes.
  let path = '';
  let before: number | undefined;
  for (const { far, tar } of points) {
    const at = f(px(x.at(far)));
    path +=
      before === undefined
        ? `M${at} ${f(py(y.at(tar)))}`
        : `L${at} ${f(py(y.at(before)))}L${at} ${f(py(y.at(tar)))}`;
    before = tar;
  }
  return frame(x, y, 'ROC curve', `<path class="roc" d="${path}"/>`);
}

export interface Histogram {
  /** Shares of their kind, by bin. */
  same: number[];
  different: number[];
  from: number;
  to: number;
}

/** Similarities of both kinds of pairs in equal bins over −1…1, cut to where there are any. */
export function histogram(
  similarities: ArrayLike<number>,
  same: ArrayLike<boolean | number>,
  bins = 60,
): Histogram {
  let [low, high] = [1, -1];
  for (let i = 0; i < similarities.length; i++) {
    low = Math.min(low, similarities[i]);
    high = Math.max(high, similarities[i]);
  }
  const from = Math.floor(low * 10) / 10;
  const to = Math.max(Math.ceil(high * 10) / 10, from + 0.1);
  const counts = { same: new Array<number>(bins).fill(0), different: new Array<number>(bins).fill(0) };
  const totals = { same: 0, different: 0 };
  for (let i = 0; i < similarities.length; i++) {
    const kind = same[i] ? 'same' : 'different';
    counts[kind][Math.min(bins - 1, Math.floor(((similarities[i] - from) / (to - from)) * bins))]++;
    totals[kind]++;
  }
  const share = (kind: 'same' | 'different') => counts[kind].map((n) => n / Math.max(1, totals[kind]));
  return { same: share('same'), different: share('different'), from, to };
}

/** Two overlaid histograms and the threshold as a line. */
export function histogramChart({ same, different, from, to }: Histogram, threshold: number): string {
  const top = Math.max(...same, ...different) * 1.06;
  const x: Axis = {
    at: (v) => (v - from) / (to - from),
    ticks: linearTicks(from, to, 1),
    title: 'cosine similarity',
  };
  const y: Axis = {
    at: (v) => v / top,
    ticks: linearTicks(0, top * 100, top < 0.03 ? 1 : 0).map(({ value, label }) => ({
      value: value / 100,
      label: `${label} %`,
    })),
    title: 'share of the pairs of a kind',
  };
  const bars = (values: readonly number[], kind: string) => {
    const width = (px(1) - px(0)) / values.length;
    return values
      .map((v, i) =>
        v > 0
          ? `<rect class="${kind}" x="${f(px(0) + i * width)}" y="${f(py(y.at(v)))}" width="${f(width + 0.2)}" height="${f(py(0) - py(y.at(v)))}"/>`
          : '',
      )
      .join('');
  };
  const at = px(x.at(Math.min(to, Math.max(from, threshold))));
  const flip = at > WIDTH - 150;
  const line = `<line class="threshold" x1="${f(at)}" y1="${TOP}" x2="${f(at)}" y2="${HEIGHT - BOTTOM}"/><text class="threshold-label" x="${f(at + (flip ? -6 : 6))}" y="${TOP + 12}" text-anchor="${flip ? 'end' : 'start'}">threshold ${threshold.toFixed(3)}</text>`;
  return frame(
    x,
    y,
    'Similarities of same and different pairs',
    bars(different, 'different') + bars(same, 'same') + line,
  );
}
