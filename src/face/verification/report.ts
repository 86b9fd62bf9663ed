/** A self-contained HTML page about one evaluation: no script, no network, pictures inline. */
import { escapeHtml, histogram, histogramChart, rocChart } from './charts.js';
import { type ScoredPairs, similarityOf, sweep } from './metrics.js';
import type { Verification } from './protocol.js';

/** A wrongly judged pair; pictures as data URIs of the aligned faces. */
export interface ReportError {
  a: { label: string; image?: string };
  b: { label: string; image?: string };
  similarity: number;
}

export interface ReportInput {
  title: string;
  result: Verification;
  pairs: ScoredPairs;
  /** Worst first. */
  falseRejects: readonly ReportError[];
  falseAccepts: readonly ReportError[];
  /** What was run on what: shown as a list of terms. */
  settings: readonly (readonly [term: string, text: string])[];
  /** What needs saying about pictures, e.g. those without a face. */
  notes: readonly { summary: string; items: readonly string[] }[];
}

export const percent = (share: number, digits = 2): string => `${(share * 100).toFixed(digits)} %`;

/** Threshold as cosine similarity, for people: distances count up, similarities are what everything else prints. */
const asSimilarity = (distance: number): string =>
  distance < 0 ? 'above 1' : similarityOf(distance).toFixed(4);

/** Numbers for a table: name, value, remark. */
export function numbersOf(result: Verification): [string, string, string][] {
  const { accuracy, optimistic } = result;
  return [
    [
      'accuracy',
      `${percent(accuracy.mean)} ± ${percent(accuracy.std)}`,
      `mean ± std over ${result.folds.length} folds, threshold from the other folds`,
    ],
    [
      '95 % interval',
      `${percent(accuracy.interval[0])} – ${percent(accuracy.interval[1])}`,
      `Wilson, ${result.pairs} pairs taken as independent`,
    ],
    ['AUC', result.auc.toFixed(5), 'area under the ROC curve'],
    ['EER', percent(result.eer), 'equal error rate'],
    ...result.tarAtFar.map((t): [string, string, string] => [
      `TAR at FAR ${percent(t.wished, 1)}`,
      ...(t.tar === null
        ? (['–', `not measurable with ${result.different} pairs of different people`] as const)
        : ([
            `${percent(t.tar)} ± ${percent(t.std)}`,
            `folds at thresholds of the other folds, where FAR came to ${percent(t.far, 3)}; all pairs at one threshold ${percent(t.pooled.tar)}`,
          ] as const)),
    ]),
    [
      'optimistic accuracy',
      percent(optimistic.accuracy),
      `threshold ${asSimilarity(optimistic.threshold)} chosen on the test pairs themselves: for comparison with figures got that way, not a result`,
    ],
  ];
}

/** The similarity that folds agree on: mean of the folds' thresholds. */
export function meanThreshold({ folds }: Verification): number {
  return similarityOf(folds.reduce((sum, fold) => sum + fold.threshold, 0) / folds.length);
}

export function renderReport(input: ReportInput): string {
  const { result, pairs, title } = input;
  const curve = sweep(pairs);
  const points = Array.from(curve.thresholds, (_, i) => ({
    far: curve.acceptedDifferent[i] / curve.different,
    tar: curve.acceptedSame[i] / curve.same,
  }));
  const similarities = Float64Array.from(pairs.distances, similarityOf);
  const threshold = meanThreshold(result);
  const both = result.same > 0 && result.different > 0;
  const charts = `<figure>${histogramChart(histogram(similarities, pairs.same), threshold)}
<figcaption><span class="key same"></span>same person (${result.same}) <span class="key different"></span>different people (${result.different})</figcaption></figure>
${both ? `<figure>${rocChart(points, result.different)}<figcaption>ROC over all pairs, AUC ${result.auc.toFixed(5)}</figcaption></figure>` : ''}`;
  const rows = numbersOf(result).map(
    ([name, value, remark]) =>
      `<tr><th scope="row">${escapeHtml(name)}</th><td class="n">${escapeHtml(value)}</td><td>${escapeHtml(remark)}</td></tr>`,
  );
  const folds = result.folds.map(
    (fold, i) =>
      `<tr><td class="n">${i + 1}</td><td class="n">${fold.pairs}</td><td class="n">${percent(fold.accuracy)}</td><td class="n">${asSimilarity(fold.threshold)}</td></tr>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title><style>${STYLE}</style></head><body><main>
<header><h1>${escapeHtml(title)}</h1>
<p class="big"><strong>${percent(result.accuracy.mean)}</strong> <span>± ${percent(result.accuracy.std)} over ${result.folds.length} folds<br>95 % interval ${percent(result.accuracy.interval[0])} – ${percent(result.accuracy.interval[1])}</span></p>
<dl>${input.settings.map(([term, text]) => `<div><dt>${escapeHtml(term)}</dt><dd>${escapeHtml(text)}</dd></div>`).join('')}</dl></header>
<section class="charts">${charts}</section>
<section><h2>Numbers</h2><table>${rows.join('')}</table></section>
${gallery('Taken for different people', 'Same person, lowest similarity first.', input.falseRejects)}
${gallery('Taken for one person', 'Different people, highest similarity first.', input.falseAccepts)}
<section><h2>Folds</h2><table class="folds"><thead><tr><th>fold</th><th>pairs</th><th>accuracy</th><th>threshold (similarity)</th></tr></thead><tbody>${folds.join('')}</tbody></table></section>
${input.notes.length > 0 ? `<section><h2>Pictures treated specially</h2>${input.notes.map(note).join('')}</section>` : ''}
</main></body></html>
`;
}

function gallery(title: string, text: string, errors: readonly ReportError[]): string {
  if (errors.length === 0) return `<section><h2>${escapeHtml(title)}</h2><p>No pair.</p></section>`;
  const side = ({ label, image }: ReportError['a']) =>
    `<div>${image ? `<img src="${escapeHtml(image)}" alt="" width="112" height="112">` : '<div class="none">no face</div>'}<span title="${escapeHtml(label)}">${escapeHtml(label)}</span></div>`;
  const cards = errors.map(
    (e) =>
      `<li><div class="pair">${side(e.a)}${side(e.b)}</div><p>similarity <b>${e.similarity.toFixed(3)}</b></p></li>`,
  );
  return `<section><h2>${escapeHtml(title)}</h2><p>${escapeHtml(text)}</p><ul class="errors">${cards.join('')}</ul></section>`;
}

function note({ summary, items }: ReportInput['notes'][number]): string {
  const list = `<ul>${items.map((item) => `<li>${escapeHtml(item)}</li>`).join('')}</ul>`;
  return `<details><summary>${escapeHtml(summary)}</summary>${list}</details>`;
}

/** Style sheet of the reports, light and dark. */
export const STYLE = `
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1c2330;--dim:#5d6778;--line:#dfe3ea;--same:#1f8a70;--diff:#d9663b;--mark:#3656c9}
@media (prefers-color-scheme:dark){:root{--bg:#14171d;--card:#1d222b;--ink:#e8ebf1;--dim:#9aa4b5;--line:#323a47;--same:#3fbf9b;--diff:#f08a5d;--mark:#8ea6ff}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 64px}h1{font-size:22px;margin:0 0 4px}h2{font-size:17px;margin:0 0 8px}
header,section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin-bottom:18px}
.big{display:flex;align-items:center;gap:18px;margin:10px 0 16px;flex-wrap:wrap}.big strong{font-size:44px;line-height:1;letter-spacing:-.02em;font-variant-numeric:tabular-nums}.big span,section>p{color:var(--dim)}section>p{margin:0 0 12px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:8px 24px;margin:0}dt{color:var(--dim);font-size:13px}dd{margin:0;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:20px}figure{margin:0}svg{width:100%;height:auto;display:block}
svg text{font-size:12px;fill:var(--dim)}svg .axis{font-size:12.5px;fill:var(--ink)}.grid{stroke:var(--line);stroke-width:1}
.roc{fill:none;stroke:var(--mark);stroke-width:2.2;stroke-linejoin:round}rect.same{fill:var(--same);fill-opacity:.72}rect.different{fill:var(--diff);fill-opacity:.72}
.threshold{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:5 4}svg .threshold-label{fill:var(--ink)}
figcaption{color:var(--dim);text-align:center;margin-top:4px}.key{display:inline-block;width:11px;height:11px;border-radius:3px;margin:0 6px 0 14px}.key.same{background:var(--same)}.key.different{background:var(--diff)}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:7px 14px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}tr:last-child>*{border-bottom:0}th{font-weight:600;white-space:nowrap}td:last-child{color:var(--dim)}.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.folds{width:auto}.folds th,.folds td{text-align:right;padding-left:14px;color:inherit}
.errors{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(258px,1fr));gap:14px}
.errors li{border:1px solid var(--line);border-radius:10px;padding:10px}.errors p{margin:8px 0 0;color:var(--dim);text-align:center;font-size:13.5px}.errors b{color:var(--ink);font-variant-numeric:tabular-nums}
.pair{display:flex;gap:8px;justify-content:center}.pair>div{width:112px}.pair img,.none{display:block;width:112px;height:112px;border-radius:6px;background:var(--line)}.none{display:grid;place-items:center;color:var(--dim);font-size:13px}
.pair span{display:block;font-size:12px;color:var(--dim);overflow:hidden;text-overflow:ellipsis;white-space:nowrap;margin-top:3px}details{margin-bottom:6px}summary{cursor:pointer}
@media print{body{background:#fff}header,section{break-inside:avoid}}`;
