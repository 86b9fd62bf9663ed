/** The plots of the Train page. */
import { colourOf } from '../../src/media/draw.js';
import { element } from './setup.js';

export interface MapPoint {
  x: number;
  y: number;
  label: string;
}

/** An empty canvas that is measured in the style sheet's pixels: letters are as large as the page's. */
function contextOf(id: string) {
  const canvas = element<HTMLCanvasElement>(id);
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  const context = canvas.getContext('2d')!;
  context.scale(devicePixelRatio, devicePixelRatio);
  const style = getComputedStyle(document.body);
  const colour = (name: string) => {
    // Colours of the style sheet may be given by light-dark(), which a canvas does not know.
    const probe = document.createElement('i');
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  return { canvas, context, width, height, font: style.fontFamily, colour };
}

export function drawLoss(losses: readonly number[]): void {
  const { canvas, context, width, height, font, colour } = contextOf('loss');
  const [left, right, top, bottom] = [40, 14, 14, 28];
  // Ticks at round numbers: 1, 2 or 5 times a power of ten.
  const rough = Math.max(...losses, 1e-3) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const tick = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
  const highest = tick * Math.ceil((4 * rough) / tick);
  const total = Math.max(losses.length - 1, 1);
  const x = (i: number) => left + ((width - left - right) * i) / total;
  const y = (v: number) => height - bottom - ((height - top - bottom) * v) / highest;
  context.font = `13px ${font}`;
  context.fillStyle = colour('--soft');
  context.strokeStyle = colour('--line');
  context.lineWidth = 1;
  context.textBaseline = 'middle';
  for (let v = 0; v <= highest * 1.001; v += tick) {
    context.beginPath();
    context.moveTo(left, y(v));
    context.lineTo(width - right, y(v));
    context.stroke();
    context.textAlign = 'right';
    context.fillText(v.toFixed(tick < 0.1 ? 2 : tick < 1 ? 1 : 0), left - 8, y(v));
  }
  context.textAlign = 'center';
  for (const i of new Set([0, Math.floor(total / 2), total]))
    context.fillText(`${i + 1}`, Math.min(x(i), width - 14), height - 13);
  const line = (values: readonly number[], style: string, thickness: number) => {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    for (const [i, v] of values.entries())
      if (i === 0) context.moveTo(x(i), y(v));
      else context.lineTo(x(i), y(v));
    context.stroke();
  };
  line(losses, colour('--soft'), 1);
  // A moving average over the tenth of the steps seen last.
  let mean = losses[0];
  const keep = 1 - 1 / Math.max(1, losses.length / 10);
  line(
    losses.map((v) => (mean = keep * mean + (1 - keep) * v)),
    colour('--accent'),
    2.5,
  );
  canvas.setAttribute(
    'aria-label',
    `Loss fell from ${losses[0].toFixed(2)} to ${losses[losses.length - 1].toFixed(2)} in ${losses.length} steps`,
  );
}

export function drawMap(points: readonly MapPoint[]): void {
  const { canvas, context, width, height, font, colour } = contextOf('map');
  const place = ({ x, y }: MapPoint) =>
    [width / 2 + x * (width / 2 - 36), height / 2 - y * (height / 2 - 30)] as const;
  const people = new Map<string, { x: number; y: number; n: number }>();
  for (const p of points) {
    const [x, y] = place(p);
    context.beginPath();
    context.arc(x, y, 5, 0, 2 * Math.PI);
    context.fillStyle = colourOf({ box: { x1: 0, y1: 0, x2: 0, y2: 0 }, label: p.label, status: 'known' });
    context.fill();
    context.strokeStyle = 'rgb(0 0 0 / 45%)';
    context.lineWidth = 1;
    context.stroke();
    const sum = people.get(p.label) ?? { x: 0, y: 0, n: 0 };
    people.set(p.label, { x: sum.x + x, y: sum.y + y, n: sum.n + 1 });
  }
  context.font = `600 13px ${font}`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  // Names only while there is room for them.
  if (people.size <= 16) {
    for (const [name, { x, y, n }] of people) {
      context.lineWidth = 3;
      context.strokeStyle = colour('--stage');
      context.strokeText(name, x / n, y / n - 14);
      context.fillStyle = colour('--text');
      context.fillText(name, x / n, y / n - 14);
    }
  }
  canvas.setAttribute('aria-label', `Embeddings of ${points.length} pictures of ${people.size} people`);
}
