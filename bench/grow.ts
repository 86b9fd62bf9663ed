// npx tsx bench/grow.ts [--only batch,picture,faces,bank,classes] [--runs 5]
//
// What it costs as work grows, one JSON line a size, medians of the runs in milliseconds:
//   batch     aligned faces that MobileFaceNet takes at once
//   picture   detecting in one group photo, scaled (faces from 40 px)
//   faces     detecting and recognising in a picture of 1920×1080 with so many faces (copies of one)
//   bank      naming an embedding: by the facebank, and by the kernel that finds the best five for one face and for sixteen
//   classes   a training step of MobileFaceNet (batch 16, 56×56) with ArcFace over so many people
import path from 'node:path';
import { createCanvas, loadImage } from '@napi-rs/canvas';
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { Facebank } from '../src/face/facebank.js';
import { GpuPicture } from '../src/face/gpu_picture.js';
import { type BufferRange, openGpu } from '../src/gpu/gpu.js';
import { Program } from '../src/gpu/program.js';
import { Model } from '../src/graph/model.js';
import { TrainableParameters } from '../src/graph/trainable.js';
import { TrainingStep } from '../src/graph/training.js';
import { cosineTopK, topKChunks } from '../src/kernels/topk/forward.js';
import { initialize } from '../src/nets/initialize.js';
import { recogniserOf } from '../src/nets/registry.js';
import { trainingGraph } from '../src/train/objective.js';
import { loadWeights } from '../src/weights/load.node.js';
import { LEARNING_RATE, NETS, TRAINABLE, weightsFor } from './nets.js';
import { benchArgs, countOf, namesOf } from './options.js';
import { adapterName, emit, GROUP_PHOTOS, median, round, wakeUp } from './shared.js';

const GROWTHS: Record<string, () => Promise<void>> = { batch, picture, faces, bank, classes };
const { values } = benchArgs(import.meta.filename, {
  options: { only: { type: 'string' }, runs: { type: 'string', default: '5' } },
});
const only =
  values.only === undefined ? Object.keys(GROWTHS) : namesOf('only', values.only, Object.keys(GROWTHS));
const runs = countOf('runs', values.runs);

const gpu = await openGpu();

/** Median milliseconds of `runs` runs after one that compiles. */
async function timed(work: () => unknown): Promise<number> {
  await work();
  await wakeUp(gpu, async () => work());
  const times: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  return median(times);
}

const line = (grows: string, size: number | string, ms: number, more: object = {}) =>
  emit({ bench: 'grow', grows, size, ms: round(ms, 3), ...more });

async function batch(): Promise<void> {
  const [build, shape] = NETS.mobilefacenet;
  const model = new Model(gpu, build, weightsFor(build(shape)));
  for (const n of [1, 2, 4, 8, 16, 32, 64]) {
    const executable = await model.at([n, ...shape.slice(1)]);
    const x = Float32Array.from({ length: n * 112 * 112 * 3 }, (_, i) => Math.sin(i));
    const ms = await timed(() => executable.run({ x }));
    line('batch', n, ms, { ms_each: round(ms / n, 3), arena_mb: round(executable.memory.bytes / 1e6) });
  }
}

/** A photo with faces drawn onto a canvas of so many pixels, as RGBA. */
async function canvasOf(width: number, height: number, draw: (c: ReturnType<typeof context>) => void) {
  const c = context(width, height);
  draw(c);
  return { width, height, data: new Uint8Array(c.getImageData(0, 0, width, height).data.buffer) };
}
const context = (width: number, height: number) => createCanvas(width, height).getContext('2d');
const photo = () => loadImage(path.join(GROUP_PHOTOS, 'sample1.jpg'));

async function picture(): Promise<void> {
  const detector = Mtcnn.create(gpu, await loadWeights('detector'));
  const image = await photo();
  for (const width of [320, 640, 1280, 1920, 3840]) {
    const height = Math.round((width * image.height) / image.width);
    const drawn = await canvasOf(width, height, (c) => c.drawImage(image, 0, 0, width, height));
    const uploaded = GpuPicture.upload(gpu, drawn);
    let found = 0;
    const ms = await timed(async () => {
      found = (await detector.detect(uploaded, { minFace: 40 })).length;
    });
    uploaded.destroy();
    line('picture', `${width}×${height}`, ms, { megapixels: round((width * height) / 1e6, 2), faces: found });
  }
}

/** Side of a face's square in pixels: 5 × 9 of them fit. */
const CELL = 200;

async function faces(): Promise<void> {
  const detector = Mtcnn.create(gpu, await loadWeights('detector'));
  const embedder = Embedder.create(gpu, await loadWeights('recogniser'));
  const image = await photo();
  const whole = await canvasOf(image.width, image.height, (c) => c.drawImage(image, 0, 0));
  const [{ box }] = await detector.detect(whole, { minFace: 40 });
  // Half as much again around the box.
  const side = 1.5 * Math.max(box.x2 - box.x1, box.y2 - box.y1);
  const [left, top] = [(box.x1 + box.x2 - side) / 2, (box.y1 + box.y2 - side) / 2];
  for (const n of [0, 1, 2, 4, 8, 16, 32]) {
    const drawn = await canvasOf(1920, 1080, (c) => {
      for (let i = 0; i < n; i++)
        c.drawImage(image, left, top, side, side, (i % 9) * CELL, Math.floor(i / 9) * CELL, CELL, CELL);
    });
    const uploaded = GpuPicture.upload(gpu, drawn);
    const find = () => detector.detect(uploaded, { minFace: 40 });
    const points = (await find()).map((f) => f.landmarks);
    const detect = await timed(find);
    const recognise = points.length === 0 ? 0 : await timed(() => embedder.embed(uploaded, points));
    uploaded.destroy();
    line('faces', n, detect + recognise, {
      found: points.length,
      detect_ms: round(detect),
      recognise_ms: round(recognise),
    });
  }
}

const DIMENSION = 128;

async function bank(): Promise<void> {
  for (const n of [100, 1000, 10_000, 100_000]) {
    const rows = Float32Array.from({ length: n * DIMENSION }, (_, i) => Math.sin(i * i) / 8);
    const query = rows.slice(0, DIMENSION);
    const entries = Array.from({ length: n }, (_, i) => ({
      name: `person ${i}`,
      picture: '',
      embedding: rows.subarray(i * DIMENSION, (i + 1) * DIMENSION),
    }));
    const known = new Facebank(entries);
    const ms = await timed(() => known.match(query, { threshold: 0.5 }));
    line('bank', n, ms, {
      kernel_ms: round(await kernel(rows, 1), 3),
      kernel_16_ms: round(await kernel(rows, 16), 3),
    });
  }
}

/** Milliseconds of the best five for so many faces, on the device from submit to results. */
async function kernel(rows: Float32Array, queries: number): Promise<number> {
  const buffers: GPUBuffer[] = [];
  const range = (data: Float32Array): BufferRange => {
    const buffer = gpu.createStorage(data.byteLength, 'bank', data);
    buffers.push(buffer);
    return { buffer, offset: 0, size: data.byteLength };
  };
  const both = (entries: number) => ({
    scores: range(new Float32Array(entries)),
    rows: range(new Float32Array(entries)),
  });
  const n = rows.length / DIMENSION;
  const result = both(queries * 5);
  const operand = (data: Float32Array, count: number) => ({
    ref: range(data),
    shape: [count, DIMENSION],
    dtype: 'f32' as const,
  });
  const asked = Float32Array.from({ length: queries * DIMENSION }, (_, i) => Math.cos(i));
  const calls = cosineTopK(
    operand(asked, queries),
    operand(rows, n),
    5,
    both(queries * topKChunks(n) * 5),
    result,
  );
  const program = await Program.create(gpu, calls);
  const ms = await timed(() => gpu.runAndRead((e) => program.record(e), [result.scores, result.rows]));
  program.destroy();
  for (const buffer of buffers) gpu.destroyBuffer(buffer);
  return ms;
}

async function classes(): Promise<void> {
  const net = recogniserOf('mobilefacenet', {})!;
  const margin = { m1: 1, m2: 0.5, m3: 0, scale: 64, exact: false, gamma: 0 };
  const sizes = { batch: 16, size: 56, teacherDimension: 0 };
  for (const n of [100, 1000, 10_000, 100_000]) {
    const graph = trainingGraph(net, { identity: { margin, weight: 1 } }, { ...sizes, classes: n });
    const parameters = TrainableParameters.create(gpu, graph, initialize(graph, 1), TRAINABLE);
    const step = await TrainingStep.compile(gpu, graph, 'loss', parameters, {});
    step.setInput(
      'x',
      Float32Array.from({ length: 16 * 56 * 56 * 3 }, (_, i) => Math.sin(i * i)),
    );
    step.setInput(
      'labels',
      Uint32Array.from({ length: 16 }, (_, i) => i % n),
    );
    const ms = await timed(() => step.run({ learningRate: LEARNING_RATE }));
    line('classes', n, ms, { memory_mb: round(step.memory.total / 1e6) });
    step.destroy();
    parameters.destroy();
  }
}

emit({ bench: 'device', adapter: adapterName(gpu), date: new Date().toISOString().slice(0, 10) });
for (const name of only) await GROWTHS[name]();
gpu.close();
