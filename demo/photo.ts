import { drawFaces } from '../src/index.js';
import { Bank } from './lib/bank.js';
import type { FoundFace, Recognition } from './lib/engine.js';
import { type Dropped, fromList, isBank, isPicture, onFiles, save } from './lib/files.js';
import { drawn, FONTS, matchOf } from './lib/names.js';
import { chooser, element, say, setUp } from './lib/setup.js';

interface Shown {
  name: string;
  bitmap: ImageBitmap;
  found: Recognition;
  thumbnail: HTMLButtonElement;
}

/** Longest side that is kept; larger photos are reduced once, when they come in. */
const LARGEST = 4096;

const canvas = element<HTMLCanvasElement>('canvas');
const minFace = element<HTMLInputElement>('min-face');
const landmarks = element<HTMLInputElement>('landmarks');
const pictures: Shown[] = [];
let current: Shown | undefined;

const bank = await Bank.open();
const session = await setUp(['detector']);

async function look(bitmap: ImageBitmap): Promise<Recognition> {
  // The engine closes what it is given, and this page goes on showing it.
  return session!.engine.recognise(await createImageBitmap(bitmap), Number(minFace.value));
}

async function addPictures(files: readonly Dropped[]): Promise<void> {
  if (!session?.nets.detector) return say('Load a detector first.', 'error');
  let failed = 0;
  for (const [i, { file, path }] of files.entries()) {
    say(`Looking at ${path} (${i + 1} of ${files.length})…`, 'busy');
    try {
      let bitmap = await createImageBitmap(file);
      const scale = LARGEST / Math.max(bitmap.width, bitmap.height);
      if (scale < 1) {
        const size = { resizeWidth: Math.round(bitmap.width * scale), resizeQuality: 'high' as const };
        bitmap = await createImageBitmap(bitmap, size);
      }
      const shown = {
        name: file.name,
        bitmap,
        found: await look(bitmap),
        thumbnail: thumbnailOf(bitmap, path),
      };
      shown.thumbnail.addEventListener('click', () => show(shown));
      element('strip').append(shown.thumbnail);
      pictures.push(shown);
      show(shown);
    } catch (error) {
      failed++;
      console.warn(`${path}: ${(error as Error).message}`);
      say(`${path}: ${(error as Error).message}`, 'error');
    }
  }
  if (failed === 0) summary();
  else if (files.length > 1) say(`${failed} of ${files.length} pictures could not be read.`, 'error');
}

function summary(): void {
  if (!current) return;
  const { faces, times } = current.found;
  const ms = times.upload + times.detect + times.embed;
  const took = ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
  say(`${faces.length === 1 ? '1 face' : `${faces.length} faces`} in ${current.name}, found in ${took}.`);
}

function thumbnailOf(bitmap: ImageBitmap, title: string): HTMLButtonElement {
  const button = document.createElement('button');
  button.type = 'button';
  button.title = title;
  button.setAttribute('aria-label', `Show ${title}`);
  const small = document.createElement('canvas');
  const scale = 120 / Math.max(bitmap.width, bitmap.height);
  small.width = Math.max(1, Math.round(bitmap.width * scale));
  small.height = Math.max(1, Math.round(bitmap.height * scale));
  small.getContext('2d')!.drawImage(bitmap, 0, 0, small.width, small.height);
  button.append(small);
  return button;
}

function show(shown: Shown): void {
  current = shown;
  for (const p of pictures) p.thumbnail.setAttribute('aria-pressed', String(p === shown));
  element('empty').hidden = true;
  element('stage').classList.add('full');
  canvas.hidden = false;
  element<HTMLButtonElement>('save').disabled = false;
  draw();
  listFaces();
}

function draw(): void {
  if (!current) return;
  const { bitmap, found } = current;
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext('2d')!;
  context.drawImage(bitmap, 0, 0);
  const faces = found.faces.map((face) => drawn(bank, session?.nets.recogniser, face));
  const { width, height } = bitmap;
  drawFaces(context, faces, { width, height, landmarks: landmarks.checked, fonts: FONTS });
  const names = faces.map((f) => f.label).join(', ');
  canvas.setAttribute('aria-label', `${current.name}: ${faces.length} faces${names ? `: ${names}` : ''}`);
}

/** The face with two fifths of its size around it: enough for another detector to find it again. */
function cropOf({ box }: FoundFace, bitmap: ImageBitmap, side: number): HTMLCanvasElement {
  const size = Math.max(box.x2 - box.x1, box.y2 - box.y1) * 1.8;
  const crop = document.createElement('canvas');
  crop.width = side;
  crop.height = side;
  const x = (box.x1 + box.x2 - size) / 2;
  const y = (box.y1 + box.y2 - size) / 2;
  crop.getContext('2d')!.drawImage(bitmap, x, y, size, size, 0, 0, side, side);
  return crop;
}

function listFaces(): void {
  const list = element('faces');
  list.replaceChildren();
  const faces = current?.found.faces ?? [];
  element('no-faces').hidden = faces.length > 0;
  element('no-net').hidden = session?.nets.recogniser !== undefined || faces.length === 0;
  element('no-faces').textContent = current
    ? 'No face found. A smaller “smallest face” may help.'
    : 'None yet.';
  for (const [i, face] of faces.entries()) {
    const { name, similarity, status } = matchOf(bank, session?.nets.recogniser, face);
    const item = document.createElement('li');
    const form = document.createElement('form');
    const input = document.createElement('input');
    Object.assign(input, { type: 'text', placeholder: 'Name', autocomplete: 'off', maxLength: 80 });
    input.setAttribute('list', 'names');
    input.setAttribute('aria-label', `Name of face ${i + 1}`);
    if (status !== 'unknown' && name) input.value = name;
    const button = Object.assign(document.createElement('button'), { textContent: 'Keep', type: 'submit' });
    const note = document.createElement('small');
    note.textContent = `${status}${similarity === undefined ? '' : `, ${similarity.toFixed(2)}`} · score ${face.score.toFixed(2)}`;
    const hasNet = face.embedding !== undefined;
    input.disabled = !hasNet;
    button.disabled = !hasNet;
    form.append(input, button);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void keep(face, input.value.normalize('NFC').trim());
    });
    const right = document.createElement('div');
    right.append(form, note);
    item.append(cropOf(face, current!.bitmap, 112), right);
    list.append(item);
  }
}

async function keep(face: FoundFace, name: string): Promise<void> {
  const net = session?.nets.recogniser;
  if (!name || !net || !face.embedding || !current) return;
  const crop = await new Promise<Blob | null>((resolve) =>
    cropOf(face, current!.bitmap, 224).toBlob(resolve, 'image/jpeg', 0.92),
  );
  if (!crop) return say('The face could not be kept.', 'error');
  await bank.add({ name, crop, embedding: face.embedding, hash: net.hash });
  refresh();
  say(`Kept as ${name}.`);
}

let urls: string[] = [];

function listPeople(): void {
  for (const url of urls) URL.revokeObjectURL(url);
  urls = [];
  const list = element('people');
  list.replaceChildren();
  element('names').replaceChildren(
    ...bank.names.map((value) => Object.assign(document.createElement('option'), { value })),
  );
  element('no-people').hidden = bank.names.length > 0;
  element<HTMLButtonElement>('export').disabled = bank.names.length === 0;
  for (const name of bank.names) {
    const own = bank.portraits.filter((p) => p.name === name);
    const item = document.createElement('li');
    const url = URL.createObjectURL(own[0].crop);
    urls.push(url);
    const image = Object.assign(document.createElement('img'), { src: url, alt: '' });
    const text = document.createElement('div');
    const stale = own.filter((p) => p.hash !== session?.nets.recogniser?.hash).length;
    text.append(
      Object.assign(document.createElement('b'), { textContent: name }),
      Object.assign(document.createElement('small'), {
        textContent: `${own.length} ${own.length === 1 ? 'picture' : 'pictures'}${stale > 0 ? `, ${stale} of other weights` : ''}`,
      }),
    );
    const remove = Object.assign(document.createElement('button'), {
      textContent: 'Remove',
      type: 'button',
      className: 'quiet',
    });
    remove.setAttribute('aria-label', `Remove ${name}`);
    remove.addEventListener('click', async () => {
      await bank.remove(own.map((p) => p.id));
      refresh();
      say(`${name} was removed.`);
    });
    item.append(image, text, remove);
    list.append(item);
  }
}

function refresh(): void {
  listPeople();
  draw();
  listFaces();
}

async function importBank(file: File): Promise<void> {
  try {
    const added = await bank.import(new Uint8Array(await file.arrayBuffer()));
    refresh();
    say(`${added} ${added === 1 ? 'picture' : 'pictures'} came in from ${file.name}.`);
  } catch (error) {
    say(`${file.name}: ${(error as Error).message}`, 'error');
  }
}

async function take(files: readonly Dropped[]): Promise<void> {
  const rest = (await session?.takeWeights(files)) ?? [];
  for (const { file } of rest.filter(isBank)) await importBank(file);
  const found = rest.filter(isPicture);
  if (found.length > 0) await addPictures(found);
  else if (rest.length > 0 && !rest.some(isBank)) say('No picture among these files.', 'error');
}

// Later work waits for earlier work: files may be dropped while others are looked at.
let work: Promise<void> = Promise.resolve();
const queue = (files: readonly Dropped[]) => {
  work = work.then(() => take(files));
};

listPeople();
if (session) {
  onFiles(queue);
  chooser('choose', 'pictures', (files) => queue(fromList([...files])));
  chooser('choose-weights', 'weights-files', (files) => queue(fromList([...files])));
  chooser('import', 'bank-file', (files) => void importBank(files[0]));
  element('empty').addEventListener('click', () => element('choose').click());
  element('export').addEventListener('click', async () =>
    save('wfr-bank.zip', (await bank.export()) as BlobPart, 'application/zip'),
  );
  element('save').addEventListener('click', () =>
    canvas.toBlob(
      (blob) => blob && save(`${current!.name.replace(/\.[^.]*$/, '')}-named.jpg`, blob, 'image/jpeg'),
      'image/jpeg',
      0.92,
    ),
  );
  landmarks.addEventListener('change', draw);
  minFace.addEventListener('input', () => {
    element('min-face-out').textContent = `${minFace.value} px`;
  });
  minFace.addEventListener('change', () => {
    work = work.then(async () => {
      if (!current) return;
      say('Looking again…', 'busy');
      current.found = await look(current.bitmap);
      show(current);
      summary();
    });
  });
  // Other weights: what was found before no longer counts.
  addEventListener('nets', () => {
    listPeople();
    work = work.then(async () => {
      for (const shown of pictures) shown.found = await look(shown.bitmap);
      if (current) show(current);
    });
  });
}
