import { colourOf } from '../src/media/draw.js';
import type { EngineEvent } from './lib/engine.js';
import { type Dropped, fromList, isPicture, onFiles, save } from './lib/files.js';
import { chooser, element, say, setUp } from './lib/setup.js';
import type { TrainingRequest } from './lib/training.js';

const field = (id: string) => element<HTMLInputElement>(id);
const losses: number[] = [];
let pictures: TrainingRequest['pictures'] = [];
let trained: Uint8Array | undefined;
let running = false;

const session = await setUp([], onEvent);

function onEvent(event: EngineEvent): void {
  if (event.kind === 'reading') {
    const skipped = event.skipped > 0 ? `, ${event.skipped} without a usable face` : '';
    say(`Reading pictures: ${event.done} of ${event.total}${skipped}.`, 'busy');
  } else if (event.kind === 'training') {
    losses.push(event.loss);
    const accuracy =
      event.accuracy === undefined ? '' : `, ${Math.round(100 * event.accuracy)} % of the batch told right`;
    element('progress').textContent =
      `Step ${event.step} of ${event.steps}: loss ${event.loss.toFixed(3)}${accuracy}, ${event.seconds.toFixed(2)} s a step.`;
    document.body.dataset.losses = JSON.stringify(losses);
    say('Training…', 'busy');
    drawLoss();
  } else if (event.kind === 'map') drawMap(event.points);
}

function contextOf(id: string) {
  const canvas = element<HTMLCanvasElement>(id);
  const context = canvas.getContext('2d')!;
  context.clearRect(0, 0, canvas.width, canvas.height);
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
  return { canvas, context, font: style.fontFamily, colour };
}

function drawLoss(): void {
  const { canvas, context, font, colour } = contextOf('loss');
  const { width, height } = canvas;
  const [left, right, top, bottom] = [70, 20, 24, 44];
  // Ticks at round numbers: 1, 2 or 5 times a power of ten.
  const rough = Math.max(...losses, 1e-3) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const tick = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
  const highest = tick * Math.ceil((4 * rough) / tick);
  const total = Math.max(losses.length - 1, 1);
  const x = (i: number) => left + ((width - left - right) * i) / total;
  const y = (v: number) => height - bottom - ((height - top - bottom) * v) / highest;
  context.font = `22px ${font}`;
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
    context.fillText(v.toFixed(tick < 0.1 ? 2 : tick < 1 ? 1 : 0), left - 10, y(v));
  }
  context.textAlign = 'center';
  for (const i of new Set([0, Math.floor(total / 2), total]))
    context.fillText(`${i + 1}`, Math.min(x(i), width - 24), height - 20);
  const line = (values: readonly number[], style: string, thickness: number) => {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    for (const [i, v] of values.entries())
      if (i === 0) context.moveTo(x(i), y(v));
      else context.lineTo(x(i), y(v));
    context.stroke();
  };
  line(losses, colour('--soft'), 1.5);
  // A moving average over the tenth of the steps seen last.
  let mean = losses[0];
  const keep = 1 - 1 / Math.max(1, losses.length / 10);
  line(
    losses.map((v) => (mean = keep * mean + (1 - keep) * v)),
    colour('--accent'),
    4,
  );
  canvas.setAttribute(
    'aria-label',
    `Loss fell from ${losses[0].toFixed(2)} to ${losses[losses.length - 1].toFixed(2)} in ${losses.length} steps`,
  );
}

function drawMap(points: readonly { x: number; y: number; label: string }[]): void {
  const { canvas, context, font, colour } = contextOf('map');
  const { width, height } = canvas;
  const place = ({ x, y }: { x: number; y: number }) =>
    [width / 2 + x * (width / 2 - 60), height / 2 - y * (height / 2 - 50)] as const;
  const people = new Map<string, { x: number; y: number; n: number }>();
  for (const p of points) {
    const [x, y] = place(p);
    context.beginPath();
    context.arc(x, y, 9, 0, 2 * Math.PI);
    context.fillStyle = colourOf({ box: { x1: 0, y1: 0, x2: 0, y2: 0 }, label: p.label, status: 'known' });
    context.fill();
    context.strokeStyle = 'rgb(0 0 0 / 45%)';
    context.lineWidth = 1.5;
    context.stroke();
    const sum = people.get(p.label) ?? { x: 0, y: 0, n: 0 };
    people.set(p.label, { x: sum.x + x, y: sum.y + y, n: sum.n + 1 });
  }
  context.font = `600 22px ${font}`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  // Names only while there is room for them.
  if (people.size <= 16) {
    for (const [name, { x, y, n }] of people) {
      context.lineWidth = 5;
      context.strokeStyle = colour('--stage');
      context.strokeText(name, x / n, y / n - 20);
      context.fillStyle = colour('--text');
      context.fillText(name, x / n, y / n - 20);
    }
  }
  canvas.setAttribute('aria-label', `Embeddings of ${points.length} pictures of ${people.size} people`);
}

async function take(files: readonly Dropped[]): Promise<void> {
  const rest = (await session?.takeWeights(files)) ?? [];
  const found = rest
    .filter((f) => isPicture(f) && f.path.includes('/'))
    .map(({ path, file }) => ({ person: path.split('/').at(-2)!, file }));
  if (found.length === 0) {
    if (rest.length > 0) say('No folders with pictures among these: each person needs a folder.', 'error');
    return;
  }
  pictures = found;
  const people = new Set(found.map((p) => p.person));
  element('data').textContent =
    `${found.length} pictures of ${people.size} ${people.size === 1 ? 'person' : 'people'}.`;
  field('batch').value = String(Math.min(Number(field('batch').value), found.length));
  // Without a detector only faces that are cut out already can be used.
  if (!session?.nets.detector) field('aligned').checked = true;
  buttons();
  say('Ready to train.');
}

function buttons(): void {
  element<HTMLButtonElement>('start').disabled = running || pictures.length === 0;
  element<HTMLButtonElement>('stop').disabled = !running;
  element<HTMLButtonElement>('download').disabled = running || !trained;
}

async function train(): Promise<void> {
  running = true;
  trained = undefined;
  losses.length = 0;
  buttons();
  try {
    trained = await session!.engine.train({
      pictures,
      aligned: field('aligned').checked,
      net: field('net').value as TrainingRequest['net'],
      size: Number(field('size').value),
      batch: Number(field('batch').value),
      steps: Number(field('steps').value),
      rate: Number(field('rate').value),
      mirrorOnly: field('mirror-only').checked,
    });
    say(`Trained for ${losses.length} steps. Download the weights, or drop them on the Photo page.`);
  } catch (error) {
    say((error as Error).message, 'error');
  }
  running = false;
  buttons();
}

if (session) {
  onFiles((files) => void take(files));
  chooser('choose', 'folder', (files) => void take(fromList([...files])));
  chooser('choose-weights', 'weights-files', (files) => void take(fromList([...files])));
  element('form').addEventListener('submit', (event) => {
    event.preventDefault();
    void train();
  });
  element('stop').addEventListener('click', () => void session.engine.stopTraining());
  element('download').addEventListener('click', () =>
    save('trained.safetensors', trained as BlobPart, 'application/octet-stream'),
  );
}
