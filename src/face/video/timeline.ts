/** Who appears when, as one self-contained HTML page: a row a person, a bar an appearance, portraits on them. */
import { escapeHtml } from '../verification/charts.js';
import type { Person } from './appearances.js';

export interface TimelineOptions {
  title: string;
  /** First and last second on the video's clock. */
  start: number;
  seconds: number;
  /** A portrait as a data URL. */
  portrait: (person: Person, appearance: number) => string | undefined;
}

/** 75.3 → `1:15.3` */
export function clock(seconds: number): string {
  const tenths = Math.round(seconds * 10);
  const [h, m, s] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const tail = s.toFixed(1).padStart(4, '0');
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${tail}` : `${m}:${tail}`;
}

export function timelineHtml(people: readonly Person[], options: TimelineOptions): string {
  const { title, start, seconds } = options;
  const length = Math.max(seconds, 1e-6);
  const percent = (t: number) => `${((100 * (t - start)) / length).toFixed(3)}%`;
  const rows = people.map((person) => {
    const bars = person.appearances.map((a, i) => {
      const image = options.portrait(person, i);
      const picture = image ? `<img src="${image}" alt="">` : '';
      const width = `${((100 * (a.end - a.start)) / length).toFixed(3)}%`;
      const tip = `${clock(a.start - start)} – ${clock(a.end - start)}`;
      return `<div class="bar${person.known ? ' known' : ''}" style="left:${percent(a.start)};width:${width}" title="${tip}">${picture}</div>`;
    });
    const best = person.appearances.reduce(
      (b, a, i) => ((a.quality ?? -1) > (person.appearances[b].quality ?? -1) ? i : b),
      0,
    );
    const image = options.portrait(person, best);
    return `<tr><th>${image ? `<img src="${image}" alt="">` : ''}<span>${escapeHtml(person.name)}<small>${clock(person.seconds)} in ${person.appearances.length} ${person.appearances.length === 1 ? 'part' : 'parts'}</small></span></th>
<td><div class="line">${bars.join('')}</div></td></tr>`;
  });
  const marks = Array.from({ length: 6 }, (_, i) => {
    const t = (seconds * i) / 5;
    return `<span style="left:${20 * i}%">${clock(t)}</span>`;
  });
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th { text-align: left; width: 15rem; padding: .4rem 1rem .4rem 0; font-weight: 600; white-space: nowrap }
th img { width: 48px; height: 48px; object-fit: cover; border-radius: 4px; vertical-align: middle; margin-right: .7rem }
th span { display: inline-block; vertical-align: middle }
small { display: block; font-weight: 400; opacity: .7 }
.line { position: relative; height: 48px; background: #8882; border-radius: 4px; overflow: hidden }
.bar { position: absolute; top: 0; bottom: 0; min-width: 3px; background: #888a; border-radius: 3px; overflow: hidden }
.bar.known { background: #2a9d8fcc }
.bar img { height: 100%; aspect-ratio: 1; object-fit: cover; display: block }
.marks { position: relative; height: 1.4rem }
.marks span { position: absolute; transform: translateX(-50%); opacity: .7; font-size: .8rem }
.marks span:first-child { transform: none }
.marks span:last-child { transform: translateX(-100%) }
</style></head><body>
<h1>${escapeHtml(title)}</h1>
<p>${clock(seconds)} long, ${people.length} ${people.length === 1 ? 'person' : 'people'}</p>
<table>
${rows.join('\n')}
<tr><th></th><td><div class="marks">${marks.join('')}</div></td></tr>
</table>
</body></html>
`;
}
