/**
 * The whole recipe: P-Net, then R-Net on what P-Net proposes, then O-Net on what R-Net lets through. Everything lands in
 * one folder as it is made (packs of samples, checkpoints, each net when it is done), so that a run that was cut off at any
 * moment goes on where it was.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { Mtcnn } from '../../face/detector.js';
import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import type { ParameterValue } from '../../graph/parameters.js';
import { readPicture } from '../../media/decode.node.js';
import { writeAtomically } from '../../media/files.node.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import { saveWeights } from '../../weights/save.node.js';
import type { StateDict } from '../../weights/state_dict.js';
import { CheckpointStore } from '../checkpoint.node.js';
import { type LogRecord, readLog, TrainingLog } from '../log.node.js';
import { differences } from '../recipe.js';
import { type CollectOptions, collectSamples, lacking, type RecipeHooks } from './collect.node.js';
import type { DetectorData } from './data.node.js';
import { readPack, writePack } from './pack.node.js';
import { renderDetectorReport } from './report.js';
import { type StageOptions, trainNet } from './stage.js';
import { type CascadeFigures, validateCascade } from './validate.js';
import type { Samples } from './vary.js';

/** What a run learns from, by which it is known again wherever the folders lie. */
const named = ({ pictures, heldOut, listed, negatives }: DetectorData): unknown => [
  ...[pictures, heldOut, listed].map((list) => list.map(({ name, faces }) => [name, faces])),
  negatives.map((file) => path.basename(file)),
];

export const NETS: readonly MtcnnNet[] = ['pnet', 'rnet', 'onet'];

export interface RecipeOptions extends CollectOptions {
  /** Go on with the run in `out`. */
  resume?: boolean;
  stages: Record<MtcnnNet, Omit<StageOptions, 'seed'>>;
  /** Smallest face that validation looks for, in pixels. Default 20. */
  minFace?: number;
  /** Train only these, for nets that are trained side by side; the weights are written once all are there. */
  nets?: readonly MtcnnNet[];
  /**
   * A detector whose nets are the ones to begin with; by default random weights. Nets that are not to be trained and that `out`
   * does not hold are its own. A run is resumed only with the same hash.
   */
  init?: { state: StateDict; hash: string };
  saveEvery?: number;
  /** How many of the held-out pictures are looked at after each net. All by default. */
  validate?: number;
  f16?: boolean;
  /** Scores of P-, R- and O-Net from which finds count, for the weights' metadata. Default 0.6, 0.1, 0.7. */
  thresholds?: readonly number[];
  metadata?: { title?: string; data?: string; licence?: string };
}

/** Without files where some of the nets are still to be trained. */
export interface RecipeResult {
  file?: string;
  report?: string;
  figures?: CascadeFigures;
}

/**
 * How nets that have learnt for an hour or two, not for days, are best used: R-Net is less sure of faces than O-Net, and points
 * are steadier from several looks.
 */
export const THRESHOLDS: readonly number[] = [0.6, 0.1, 0.7];

/** @throws WfrError when the folder holds another run, a net has nothing to learn from, or a loss is no number; AbortError when stopped. */
export async function trainMtcnn(
  gpu: Gpu,
  data: DetectorData,
  options: RecipeOptions,
  hooks: RecipeHooks = {},
): Promise<RecipeResult> {
  const run = new Run(gpu, data, options, hooks);
  return run.all();
}

class Run {
  readonly state: Map<string, ParameterValue> = new Map();

  constructor(
    private readonly gpu: Gpu,
    private readonly data: DetectorData,
    private readonly o: RecipeOptions,
    private readonly hooks: RecipeHooks,
  ) {}

  /** For the weights' metadata. */
  private get config() {
    return { thresholds: this.o.thresholds ?? THRESHOLDS, secondLook: true, voteBoxes: true };
  }

  private file(...names: string[]): string {
    return path.join(this.o.out, ...names);
  }

  async all(): Promise<RecipeResult> {
    const { o, data, hooks } = this;
    const { seed, stages, minFace, mineEvery, mineFace, onetAfter } = o;
    const initHash = o.init?.hash;
    const digest = createHash('sha256')
      .update(JSON.stringify(named(data)))
      .digest('hex');
    const settings = {
      ...{ seed, stages, minFace, mineEvery, mineFace, onetAfter },
      ...{ 'first weights': initHash, mask: o.mask?.hash, data: digest },
    };
    await this.requireSame(settings);
    await this.requireNets();
    await writeAtomically(this.file('run.json'), JSON.stringify(settings));
    hooks.note?.(
      `${data.pictures.length} pictures with boxes, ${data.heldOut.length} held out, ${data.listed.length} lone faces with points, ${data.negatives.length} backgrounds`,
    );
    for (const net of NETS) {
      const isSkipped = o.nets !== undefined && !o.nets.includes(net);
      const weights = isSkipped ? await this.given(net) : await this.stage(net);
      for (const [name, value] of weights ?? []) this.state.set(name, value);
    }
    const missing = NETS.filter((net) => !this.state.has(`${net}.conv1.weight`));
    if (missing.length > 0) {
      hooks.note?.(`no weights are written before ${missing.join(' and ')} are trained too`);
      return {};
    }
    const file = this.file('mtcnn.safetensors');
    const metadata = { net: 'mtcnn', config: this.config, ...o.metadata };
    await saveWeights(file, { state: this.state, metadata }, o.f16 ? 'f16' : 'f32');
    const report = this.file('report.html');
    const logs = Object.fromEntries(NETS.map((net) => [net, readLog(this.file(net, 'log.jsonl'))]));
    const figures = await this.validate('onet', this.state);
    await writeAtomically(
      report,
      renderDetectorReport(logs as Record<MtcnnNet, LogRecord[]>, figures, o, data),
    );
    return { file, report, figures };
  }

  /** @throws WfrError when `out` holds a run that is not to be gone on with, or another one. */
  private async requireSame(settings: Record<string, unknown>): Promise<void> {
    const { out, resume } = this.o;
    const file = this.file('run.json');
    if (!existsSync(file)) {
      if (resume) this.hooks.note?.(`${out} holds no run: beginning one`);
      return;
    }
    if (!resume)
      throw new WfrError(
        `${out} holds a run already: go on with --resume, or choose another folder with --out.`,
      );
    const before = await settingsIn(file);
    // Of data of no use nothing is kept, so that other data may follow.
    const isBegun = NETS.some((net) =>
      ['samples.pack', 'done'].some((name) => existsSync(this.file(net, name))),
    );
    if (!isBegun) before.data = settings.data;
    const differing = differences(before, settings);
    if (differing.length > 0)
      throw new WfrError(
        `${out} holds another run: ${differing.join(', ')} ${differing.length > 1 ? 'differ' : 'differs'}. Resume with the same options and data, or choose another folder with --out.`,
      );
  }

  /** @throws WfrError when a net is to learn from the mistakes of one that there is not. */
  private async requireNets(): Promise<void> {
    const { nets = NETS, out, onetAfter } = this.o;
    for (const net of nets) {
      const before =
        net === 'pnet' ? [] : net === 'rnet' || onetAfter === 'pnet' ? ['pnet'] : ['pnet', 'rnet'];
      for (const needed of before as MtcnnNet[])
        if (!nets.includes(needed) && !(await this.given(needed)))
          throw new WfrError(
            `${net} learns from what ${needed} proposes, and ${out} holds no ${needed} yet: train it first (--only ${needed}, or all without --only), or give a detector with --init.`,
          );
    }
  }

  /** The weights of a net that is not to be trained: those in `out`, else those to begin with. */
  private async given(net: MtcnnNet): Promise<Map<string, ParameterValue> | undefined> {
    const done = await this.finished(net);
    if (done || !this.o.init) return done;
    const own = [...this.o.init.state].filter(([name]) => name.startsWith(`${net}.`));
    return own.length > 0 ? new Map(own) : undefined;
  }

  /** The weights of a net that is done. */
  private async finished(net: MtcnnNet): Promise<Map<string, ParameterValue> | undefined> {
    const folder = this.file(net, 'done');
    if (!existsSync(folder)) return undefined;
    const done = await (await CheckpointStore.open(folder, 1)).latest(this.hooks.note);
    if (!done) return undefined;
    const shapes = done.state.shapes as Record<string, number[]>;
    return new Map(
      Object.entries(done.buffers).map(([name, b]) => [
        name,
        { shape: shapes[name], data: new Float32Array(b) },
      ]),
    );
  }

  /** One net from samples to weights, or what an earlier run has of it. */
  private async stage(net: MtcnnNet): Promise<Map<string, ParameterValue>> {
    const ready = await this.finished(net);
    if (ready) return ready;
    const old = await readPack(this.file(net, 'samples.pack'));
    const pack = old && lacking(old.tasks).length === 0 ? old : await this.collect(net);
    this.hooks.note?.(`${net}: ${describePack(pack.tasks)}`);
    const store = await CheckpointStore.open(this.file(net, 'checkpoints'), 2);
    const last = await store.latest(this.hooks.note);
    const log = await TrainingLog.open(this.file(net, 'log.jsonl'), last?.step ?? 0);
    const steps = this.o.stages[net].steps;
    const begin = performance.now();
    const from = last?.step ?? 0;
    const weights = await trainNet(
      this.gpu,
      net,
      pack,
      { ...this.o.stages[net], seed: this.o.seed },
      {
        init: this.o.init?.state,
        resume: last,
        saveEvery: this.o.saveEvery ?? 500,
        onSave: async (step, buffers) => void (await store.save({ step, state: {}, buffers })),
        onRecord: (r) => {
          log.write({ ...r });
          const rate = ((r.step - from) * this.o.stages[net].batch * 1000) / (performance.now() - begin);
          this.hooks.progress?.(
            net,
            r.step,
            steps,
            `loss ${r.loss.toFixed(4)}, class ${r.classLoss.toFixed(4)}, box ${r.boxLoss.toFixed(4)}${net === 'onet' ? `, points ${r.pointsLoss.toFixed(4)}` : ''}, right ${(100 * r.accuracy).toFixed(1)} %, ${rate.toFixed(0)} samples/s`,
          );
        },
        signal: this.o.signal,
      },
    );
    const combined = new Map([...this.state, ...weights]);
    const figures = net === 'onet' ? undefined : await this.validate(net, combined);
    if (figures) log.write({ step: steps, validation: figures });
    const done = await CheckpointStore.open(this.file(net, 'done'), 1);
    await done.save({
      step: steps,
      state: { shapes: Object.fromEntries([...weights].map(([name, v]) => [name, v.shape])) },
      buffers: Object.fromEntries([...weights].map(([name, v]) => [name, v.data.slice().buffer])),
    });
    await rm(this.file(net, 'checkpoints'), { recursive: true });
    return weights;
  }

  private async collect(net: MtcnnNet): Promise<Samples> {
    const pack = await collectSamples(this.gpu, net, this.data, this.state, this.o, this.hooks);
    await writePack(this.file(net, 'samples.pack'), pack);
    return pack;
  }

  private async validate(net: MtcnnNet, state: StateDict): Promise<CascadeFigures | undefined> {
    const pictures = this.data.heldOut.slice(0, this.o.validate);
    if (pictures.length === 0) return undefined;
    const detector = Mtcnn.create(this.gpu, { state, metadata: { net: 'mtcnn', config: this.config } });
    try {
      const figures = await validateCascade(detector, net, pictures, readPicture, {
        minFace: this.o.minFace ?? 20,
        onPicture: (done) => {
          this.o.signal?.throwIfAborted();
          this.hooks.progress?.(`${net} validation`, done, pictures.length);
        },
      });
      this.hooks.note?.(`${net}: ${figures.text}`);
      return figures;
    } finally {
      await detector.destroy();
    }
  }
}

function describePack(tasks: Uint8Array): string {
  const names = ['negatives', 'positives', 'part faces'];
  const counts = [0, 0, 0, 0];
  for (const t of tasks) {
    counts[t & 2 ? 1 : t & 1 ? 0 : 2]++;
    if (t & 8) counts[3]++;
  }
  return `${names.map((n, k) => `${counts[k]} ${n}`).join(', ')}, ${counts[3]} with points`;
}

async function settingsIn(file: string): Promise<Record<string, unknown>> {
  let settings: unknown;
  try {
    settings = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  if (typeof settings !== 'object' || settings === null)
    throw new WfrError(
      `${file} is damaged: what this run was begun with cannot be told. Choose another folder with --out.`,
    );
  return settings as Record<string, unknown>;
}
