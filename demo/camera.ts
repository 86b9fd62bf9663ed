import { type DrawnFace, drawFaces } from '../src/index.js';
import { Bank } from './lib/bank.js';
import type { FoundFace } from './lib/engine.js';
import { type Dropped, fromList, isVideo, onFiles, save } from './lib/files.js';
import { drawn, FONTS } from './lib/names.js';
import { chooser, element, megabytes, say, setUp } from './lib/setup.js';
import { annotateVideo, canAnnotate } from './lib/video.js';

const video = element<HTMLVideoElement>('video');
const overlay = element<HTMLCanvasElement>('overlay');
const minFace = element<HTMLInputElement>('min-face');
const STAGES = ['grab', 'upload', 'detect', 'embed', 'name', 'draw'] as const;
type Stage = (typeof STAGES)[number];
const WINDOW = 30;

const bank = await Bank.open();
const session = await setUp(['detector']);

/** The run that is shown; another start or a stop ends it. */
let run = 0;
let stream: MediaStream | undefined;
const history: Record<Stage, number>[] = [];
const finished: number[] = [];
let frames = 0;
/** The video file that is shown. */
let chosen: File | undefined;

/** The video's frame as something that can be handed to a worker; undefined while there is none. */
async function grab(): Promise<VideoFrame | ImageBitmap | undefined> {
  if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || (video.paused && !video.ended))
    return undefined;
  try {
    return typeof VideoFrame === 'undefined' ? await createImageBitmap(video) : new VideoFrame(video);
  } catch (error) {
    // Chromium says that it has current data when a frame is decoded; what can be taken comes a little later.
    if ((error as Error).name === 'InvalidStateError') return undefined;
    throw error;
  }
}

/** A clip may end before its first frame could be taken: that frame is still there then. Sound alone has none. */
const isOver = () => video.ended && (frames > 0 || video.videoWidth === 0);

const nameOf = (face: FoundFace): DrawnFace => drawn(bank, session?.nets.recogniser, face);

/** Resolves when the video shows another frame than before. */
function nextFrame(): Promise<void> {
  return new Promise((resolve) => {
    if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(() => resolve());
    else requestAnimationFrame(() => resolve());
  });
}

async function loop(own: number): Promise<void> {
  let shown = '';
  while (own === run && !isOver()) {
    try {
      const t0 = performance.now();
      const frame = await grab();
      if (!frame) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        continue;
      }
      const t1 = performance.now();
      const found = await session!.engine.recognise(frame, Number(minFace.value));
      if (own !== run) return;
      const t2 = performance.now();
      const faces = found.faces.map(nameOf);
      const t3 = performance.now();
      draw(faces, found.width, found.height);
      const t4 = performance.now();
      note({ grab: t1 - t0, ...found.times, name: t3 - t2, draw: t4 - t3 }, t4, found.gpuBytes);
      const seen = faces.map((f) => f.label).join(', ');
      if (seen !== shown) listSeen(faces);
      shown = seen;
    } catch (error) {
      say((error as Error).message, 'error');
      return stop();
    }
    await Promise.race([nextFrame(), new Promise((resolve) => setTimeout(resolve, 500))]);
  }
  if (own === run) {
    say(`The video is over: ${frames} frames were looked at.`);
    element<HTMLButtonElement>('stop').disabled = true;
  }
}

/** In the pixels of the screen, not of the video: names stay legible however small the one or large the other. */
function draw(faces: readonly DrawnFace[], width: number, height: number): void {
  const shown = Math.min(overlay.clientWidth / width, overlay.clientHeight / height);
  const scale = shown * devicePixelRatio;
  const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
  Object.assign(overlay, size);
  // The video is mirrored by CSS; boxes follow, names stay readable.
  const mirrored = element<HTMLInputElement>('mirror').checked;
  const placed = faces.map((face) => place(face, scale, mirrored ? width : undefined));
  drawFaces(overlay.getContext('2d')!, placed, { ...size, fonts: FONTS });
  overlay.setAttribute('aria-label', faces.length > 0 ? faces.map((f) => f.label).join(', ') : 'No face');
}

/** @param mirroredIn width of the video, where it is mirrored. */
function place(face: DrawnFace, scale: number, mirroredIn: number | undefined): DrawnFace {
  const x = (v: number) => scale * (mirroredIn === undefined ? v : mirroredIn - v);
  const { x1, y1, x2, y2 } = face.box;
  const [left, right] = [x(x1), x(x2)].sort((a, b) => a - b);
  return {
    ...face,
    box: { x1: left, y1: scale * y1, x2: right, y2: scale * y2 },
    landmarks: face.landmarks?.map(([px, py]) => [x(px), scale * py] as const),
  };
}

function note(times: Record<Stage, number>, now: number, gpuBytes: number): void {
  frames++;
  // The first frame of a page compiles every shader.
  if (frames === 1) document.body.dataset.first ??= JSON.stringify(times);
  history.push(times);
  finished.push(now);
  if (history.length > WINDOW) history.shift();
  if (finished.length > WINDOW) finished.shift();
  const span = finished[finished.length - 1] - finished[0];
  const fps = span > 0 ? ((finished.length - 1) * 1000) / span : 0;
  element('fps').textContent = fps > 0 ? fps.toFixed(1) : '–';
  const median = (stage: Stage) => history.map((h) => h[stage]).sort((a, b) => a - b)[history.length >> 1];
  element('times').replaceChildren(
    ...STAGES.map((stage) => {
      const row = document.createElement('tr');
      row.append(
        Object.assign(document.createElement('td'), { textContent: stage }),
        Object.assign(document.createElement('td'), { textContent: median(stage).toFixed(1) }),
      );
      return row;
    }),
  );
  element('memory').textContent = megabytes(gpuBytes);
  document.body.dataset.frames = String(frames);
  document.body.dataset.gpuBytes = String(gpuBytes);
}

function listSeen(faces: readonly DrawnFace[]): void {
  element('nobody').hidden = faces.length > 0;
  element('seen').replaceChildren(
    ...faces.map((face) =>
      Object.assign(document.createElement('li'), {
        textContent: `${face.label}${face.similarity === undefined ? '' : ` ${face.similarity.toFixed(2)}`}`,
      }),
    ),
  );
}

function stop(): void {
  run++;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = undefined;
  video.pause();
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute('src');
  video.srcObject = null;
  element('layers').hidden = true;
  element('empty').hidden = false;
  element('stage').classList.remove('full');
  element<HTMLButtonElement>('stop').disabled = true;
  element<HTMLButtonElement>('annotate').disabled = true;
  listSeen([]);
}

async function play(what: string): Promise<void> {
  element('layers').hidden = false;
  element('empty').hidden = true;
  element('stage').classList.add('full');
  element<HTMLButtonElement>('stop').disabled = false;
  history.length = 0;
  finished.length = 0;
  frames = 0;
  await video.play();
  say(`Watching ${what}.`);
  void loop(run);
}

async function startCamera(): Promise<void> {
  if (!session?.nets.detector) return say('Load a detector first.', 'error');
  stop();
  try {
    say('Asking for the camera…', 'busy');
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, facingMode: 'user' },
    });
    video.srcObject = stream;
    await play('the camera');
  } catch (error) {
    stop();
    say(`The camera cannot be used: ${(error as Error).message}`, 'error');
  }
}

async function startVideo(file: File): Promise<void> {
  if (!session?.nets.detector) return say('Load a detector first.', 'error');
  stop();
  try {
    video.src = URL.createObjectURL(file);
    await play(file.name);
    chosen = file;
    element<HTMLButtonElement>('annotate').disabled = !canAnnotate();
  } catch (error) {
    stop();
    say(`${file.name} cannot be played: ${(error as Error).message}`, 'error');
  }
}

/** The whole file, every frame, at its own pace; the player rests meanwhile. */
async function annotate(): Promise<void> {
  const file = chosen;
  if (!file) return;
  stop();
  try {
    const bytes = await annotateVideo(
      file,
      async (frame) => (await session!.engine.recognise(frame, Number(minFace.value))).faces.map(nameOf),
      (context, faces) => {
        const { width, height } = context.canvas;
        drawFaces(context, faces, { width, height, fonts: FONTS });
      },
      (share) => say(`Drawing names into ${file.name}: ${Math.round(100 * share)} %`, 'busy'),
    );
    save(`${file.name.replace(/\.[^.]*$/, '')}-named.mp4`, bytes, 'video/mp4');
    say(`${file.name} was saved with names.`);
  } catch (error) {
    say(`${file.name}: ${(error as Error).message}`, 'error');
  }
}

async function take(files: readonly Dropped[]): Promise<void> {
  const rest = (await session?.takeWeights(files)) ?? [];
  const found = rest.find(isVideo);
  if (found) await startVideo(found.file);
  else if (rest.length > 0) say('No video among these files.', 'error');
}

if (session) {
  onFiles((files) => void take(files));
  chooser('choose', 'videos', (files) => void startVideo(files[0]));
  chooser('choose-weights', 'weights-files', (files) => void take(fromList([...files])));
  element('start').addEventListener('click', () => void startCamera());
  element('stop').addEventListener('click', () => {
    stop();
    say('Stopped.');
  });
  element('annotate').addEventListener('click', () => void annotate());
  element('mirror').addEventListener('change', () => {
    video.style.transform = element<HTMLInputElement>('mirror').checked ? 'scaleX(-1)' : '';
  });
  minFace.addEventListener('input', () => {
    element('min-face-out').textContent = `${minFace.value} px`;
  });
}
