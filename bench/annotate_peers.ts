// npx tsx bench/annotate_peers.ts [PHOTO …] [--runs 3] [--min-face 50] [--precision f16] [--python python3]
//
// Annotating a picture of 1920×1080 from file to encoded picture, by wfr and by PyTorch on the processor
// (peers/torch_pipeline.py), in turn, stage by stage: one JSON line a picture (what both found, and how well it agrees)
// and one a stage: wall time, and processor time over the number of cores, which other work on the machine disturbs
// less; medians of the runs, means over the pictures. Without PHOTO: the group photos of the npm package
// @vladmandic/face-api. The detector is the one that wfr finds (WFR_WEIGHTS); iResNet50 gets random weights, the
// same on both sides. A first run of each picture, which compiles, is not counted.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { createCanvas, loadImage } from '@napi-rs/canvas';
import { invert, type Points, similarity, TEMPLATE_112 } from '../src/face/align.js';
import { type Box, iou } from '../src/face/boxes.js';
import { type Face, Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { GpuPicture } from '../src/face/gpu_picture.js';
import { cosine } from '../src/face/match.js';
import { type Gpu, openGpu } from '../src/gpu/gpu.js';
import { Program } from '../src/gpu/program.js';
import { warpFaces } from '../src/kernels/picture/warp.js';
import { tensorBytes } from '../src/kernels/tensor.js';
import { renderAnnotated } from '../src/media/annotate.node.js';
import { decodePicture } from '../src/media/decode.node.js';
import { iresnet } from '../src/nets/iresnet.js';
import type { Weights } from '../src/weights/convert.js';
import { loadWeights } from '../src/weights/load.node.js';
import { saveWeights } from '../src/weights/save.node.js';
import { weightsFor } from './nets.js';
import { above0, benchArgs, countOf, precisionOf } from './options.js';
import { adapterName, emit, GROUP_PHOTOS, mean, median, round } from './shared.js';

const { values, positionals } = benchArgs(import.meta.filename, {
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '3' },
    'min-face': { type: 'string', default: '50' },
    precision: { type: 'string', default: 'f32' },
    python: { type: 'string' },
  },
});
const minFace = above0('min-face', values['min-face']);
const precision = precisionOf(values.precision);
const runs = countOf('runs', values.runs);

/** In the order of the work. wfr aligns and recognises in one submit; see `alignAlone`. */
const STAGES = ['decode', 'upload', 'pnet', 'rnet', 'onet', 'align', 'recognise', 'draw_encode'] as const;
type Stage = (typeof STAGES)[number];
/** Wall and processor milliseconds of the whole process, the latter of all cores together. */
type Times = readonly [number, number];

interface Result {
  stages: Partial<Record<Stage, Times>>;
  /** Boxes that R-Net and O-Net were asked about. */
  proposed: number;
  refined: number;
  boxes: (readonly [number, number, number, number])[];
  landmarks: Points[];
  embeddings: ArrayLike<number>[];
}

interface Pipeline {
  annotate(file: string): Promise<Result>;
}

class Wfr implements Pipeline {
  readonly #detector: Mtcnn;
  readonly #embedder: Embedder;

  constructor(
    private readonly gpu: Gpu,
    detector: Weights,
    recogniser: Weights,
  ) {
    this.#detector = Mtcnn.create(gpu, detector);
    this.#embedder = Embedder.create(gpu, recogniser, { precision });
  }

  async annotate(file: string): Promise<Result> {
    const stages: Result['stages'] = {};
    const timed = async <T>(stage: Stage, work: () => T | Promise<T>): Promise<T> => {
      const start = performance.now();
      const before = process.cpuUsage();
      const result = await work();
      const { user, system } = process.cpuUsage(before);
      stages[stage] = [performance.now() - start, (user + system) / 1000];
      return result;
    };
    const options = { minFace };
    const detector = this.#detector;
    const picture = await timed('decode', async () => decodePicture(readFileSync(file)));
    const uploaded = await timed('upload', async () => {
      const onGpu = GpuPicture.upload(this.gpu, picture);
      await this.gpu.runAndRead(() => {}, []);
      return onGpu;
    });
    // biome-ignore-start lint/complexity/useLiteralKeys: the parts of Mtcnn.detect are private
    const proposed = await timed('pnet', () => detector['first'](uploaded, options));
    const refined = await timed('rnet', () => detector['refine'](uploaded, proposed, 0.7));
    const faces: Face[] = await timed('onet', () => detector['finish'](uploaded, refined, 0.7, false));
    // biome-ignore-end lint/complexity/useLiteralKeys: see above
    const landmarks = faces.map((f) => f.landmarks);
    let embeddings: Float32Array[] = [];
    if (faces.length > 0) {
      await this.alignAlone(uploaded, landmarks, (work) => timed('align', work));
      embeddings = await timed('recognise', () => this.#embedder.embed(uploaded, landmarks));
      const [align, both] = [stages.align!, stages.recognise!];
      stages.recognise = [both[0] - align[0], both[1] - align[1]];
    }
    const drawn = faces.map((f) => ({ ...f, label: 'Name', similarity: 1 }));
    await timed('draw_encode', () => renderAnnotated(picture, drawn, { format: 'jpg' }));
    uploaded.destroy();
    return {
      stages,
      proposed: proposed.length,
      refined: refined.length,
      boxes: faces.map(({ box }) => [box.x1, box.y1, box.x2, box.y2] as const),
      landmarks,
      embeddings,
    };
  }

  /** The embedder warps and embeds in one submit; the warp once more by itself tells the two apart. */
  private async alignAlone(
    picture: GpuPicture,
    landmarks: readonly Points[],
    timed: (work: () => Promise<unknown>) => Promise<unknown>,
  ): Promise<void> {
    const shape = [2 * landmarks.length, 112, 112, 3];
    const size = tensorBytes(shape, 'f32');
    const x = {
      ref: { buffer: this.gpu.createStorage(size, 'faces'), offset: 0, size },
      shape,
      dtype: 'f32' as const,
    };
    const maps = Float32Array.from(landmarks.flatMap((p) => [...invert(similarity(p, TEMPLATE_112)), 0, 0]));
    const range = {
      buffer: this.gpu.createStorage(maps.byteLength, 'maps', maps),
      offset: 0,
      size: maps.byteLength,
    };
    const { mean, scale, order } = PREPROCESSING;
    const warp = await Program.create(
      this.gpu,
      warpFaces(picture.operand, range, x, { mean, scale, order, mirror: true }),
    );
    await timed(() => this.gpu.runAndRead((encoder) => warp.record(encoder), []));
    warp.destroy();
    for (const { buffer } of [x.ref, range]) this.gpu.destroyBuffer(buffer);
  }
}

/** The Python process: a path a line in, a result a line out. */
class Torch implements Pipeline {
  readonly #answers: AsyncIterator<string>;

  constructor(private readonly child: ChildProcess) {
    this.#answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  static async start(python: string, folder: string): Promise<{ torch: Torch; about: object }> {
    const script = path.join(import.meta.dirname, 'peers', 'torch_pipeline.py');
    const files = ['detector.safetensors', 'recogniser.safetensors'].map((f) => path.join(folder, f));
    const args = [script, ...files, String(minFace), path.join(folder, 'torch.jpg')];
    const torch = new Torch(spawn(python, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
    return { torch, about: await torch.answer() };
  }

  annotate(file: string): Promise<Result> {
    this.child.stdin!.write(`${file}\n`);
    return this.answer();
  }

  // biome-ignore lint/suspicious/noExplicitAny: what a line holds is known where it is asked for
  private async answer(): Promise<any> {
    const { value, done } = await this.#answers.next();
    if (done) throw new Error('The Python process ended early; what it said is above.');
    return JSON.parse(value);
  }

  close(): void {
    this.child.stdin!.end();
  }
}

/** An interpreter that has PyTorch: Debian's packages belong to /usr/bin/python3, which need not be the first. */
function findPython(): string {
  const tried = values.python ? [values.python] : ['python3', '/usr/bin/python3'];
  for (const python of tried) {
    try {
      execFileSync(python, ['-c', 'import torch, numpy, PIL'], { stdio: 'ignore' });
      return python;
    } catch {}
  }
  throw new Error(
    `None of ${tried.join(', ')} has PyTorch, NumPy and Pillow. On Debian and Ubuntu: apt-get install --no-install-recommends python3-torch python3-numpy python3-pil libopenblas0-openmp. Others are named with --python.`,
  );
}

const PREPROCESSING = { mean: 127.5, scale: 1 / 127.5, order: 'rgb' } as const;

function randomRecogniser(): Weights {
  const state = weightsFor(iresnet([1, 112, 112, 3], { depth: 50 }));
  const metadata = {
    net: 'iresnet',
    config: { depth: 50 },
    input: { height: 112, width: 112 },
    preprocessing: PREPROCESSING,
  };
  return { state, metadata };
}

/** Photos fitted into 1920×1080, with black beside them. */
async function fitted(photos: readonly string[], folder: string): Promise<string[]> {
  const out: string[] = [];
  for (const [i, photo] of photos.entries()) {
    const image = await loadImage(photo);
    const scale = Math.min(1920 / image.width, 1080 / image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    const canvas = createCanvas(1920, 1080);
    canvas.getContext('2d').drawImage(image, (1920 - w) / 2, (1080 - h) / 2, w, h);
    out.push(path.join(folder, `${i}.jpg`));
    writeFileSync(out[i], await canvas.encode('jpeg', 95));
  }
  return out;
}

function samplePhotos(): string[] {
  return readdirSync(GROUP_PHOTOS)
    .filter((f) => f.endsWith('.jpg'))
    .map((f) => path.join(GROUP_PHOTOS, f));
}

/** Faces that both found, each with its best partner, if they overlap by half. */
function agreement(ours: Result, theirs: Result): object {
  const box = ([x1, y1, x2, y2]: Result['boxes'][number]): Box => ({ x1, y1, x2, y2 });
  const pairs = ours.boxes.flatMap((a, i) => {
    const overlaps = theirs.boxes.map((b) => iou(box(a), box(b)));
    const best = Math.max(0, ...overlaps);
    return best >= 0.5 ? [{ i, j: overlaps.indexOf(best), iou: best }] : [];
  });
  const similarities = pairs.map(({ i, j }) =>
    cosine(Float32Array.from(ours.embeddings[i]), Float32Array.from(theirs.embeddings[j])),
  );
  return {
    wfr: { proposed: ours.proposed, refined: ours.refined, faces: ours.boxes.length },
    torch: { proposed: theirs.proposed, refined: theirs.refined, faces: theirs.boxes.length },
    matched: pairs.length,
    ...(pairs.length > 0 && {
      mean_iou: round(mean(pairs.map((p) => p.iou)), 4),
      least_iou: round(Math.min(...pairs.map((p) => p.iou)), 4),
      least_cosine: round(Math.min(...similarities), 5),
    }),
  };
}

/** Wall time, and processor time over the cores: medians of the runs of a picture, means over the pictures. */
function summary(runs: readonly Result[][], stage: Stage): { ms: number; processor_ms: number } {
  const typical = (k: 0 | 1) =>
    mean(runs.map((ofPicture) => median(ofPicture.map((r) => r.stages[stage]?.[k] ?? 0))));
  return { ms: typical(0), processor_ms: typical(1) / availableParallelism() };
}

const python = findPython();
const folder = mkdtempSync(path.join(tmpdir(), 'wfr-bench-'));
try {
  const detector = await loadWeights('detector');
  const recogniser = randomRecogniser();
  await saveWeights(path.join(folder, 'detector.safetensors'), detector);
  await saveWeights(path.join(folder, 'recogniser.safetensors'), recogniser);
  const photos = positionals.length > 0 ? positionals : samplePhotos();
  const files = await fitted(photos, folder);
  const { torch, about } = await Torch.start(python, folder);
  const gpu = await openGpu();
  emit({ bench: 'annotate_peers', adapter: adapterName(gpu), precision, minFace, ...about });
  const pipelines: Record<string, Pipeline> = { wfr: new Wfr(gpu, detector, recogniser), torch };
  const results: Record<string, Result[][]> = { wfr: [], torch: [] };
  for (const [i, file] of files.entries()) {
    for (let run = 0; run <= runs; run++) {
      for (const [name, pipeline] of Object.entries(pipelines)) {
        const result = await pipeline.annotate(file);
        if (run === 0) results[name].push([]);
        else results[name][i].push(result);
      }
    }
    const [ours, theirs] = [results.wfr[i][0], results.torch[i][0]];
    emit({ bench: 'annotate_agreement', picture: path.basename(photos[i]), ...agreement(ours, theirs) });
  }
  const total = { wfr: 0, torch: 0 };
  for (const stage of STAGES) {
    const [ours, theirs] = [summary(results.wfr, stage), summary(results.torch, stage)];
    total.wfr += ours.processor_ms;
    total.torch += theirs.processor_ms;
    emit({
      bench: 'annotate_stage',
      stage,
      wfr_ms: round(ours.ms),
      torch_ms: round(theirs.ms),
      wfr_processor_ms: round(ours.processor_ms),
      torch_processor_ms: round(theirs.processor_ms),
      times_as_fast: round(theirs.processor_ms / ours.processor_ms, 2),
    });
  }
  emit({
    bench: 'annotate_total',
    wfr_processor_ms: round(total.wfr),
    torch_processor_ms: round(total.torch),
    times_as_fast: round(total.torch / total.wfr, 2),
  });
  torch.close();
  gpu.close();
} finally {
  rmSync(folder, { recursive: true });
}
