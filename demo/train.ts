import { drawLoss, drawMap, type MapPoint } from './lib/charts.js';
import type { EngineEvent } from './lib/engine.js';
import { type Dropped, fromList, isPicture, onFiles, save } from './lib/files.js';
import { chooser, element, say, setUp } from './lib/setup.js';
import type { TrainingRequest } from './lib/training.js';

const field = (id: string) => element<HTMLInputElement>(id);
const losses: number[] = [];
let map: readonly MapPoint[] = [];
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
    drawLoss(losses);
  } else if (event.kind === 'map') {
    map = event.points;
    drawMap(map);
  }
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
  addEventListener('resize', () => {
    if (losses.length > 0) drawLoss(losses);
    if (map.length > 0) drawMap(map);
  });
  element('form').addEventListener('submit', (event) => {
    event.preventDefault();
    void train();
  });
  element('stop').addEventListener('click', () => void session.engine.stopTraining());
  element('download').addEventListener('click', () =>
    save('trained.safetensors', trained as BlobPart, 'application/octet-stream'),
  );
}
