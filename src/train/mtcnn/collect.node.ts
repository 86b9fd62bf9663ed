/** All samples of one net, out of all pictures, with the mistakes of the nets before it. */
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import type { Box } from '../../face/boxes.js';
import { Mtcnn } from '../../face/detector.js';
import { WfrError } from '../../gpu/errors.js';
import type { Gpu } from '../../gpu/gpu.js';
import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import { readPicture } from '../../media/decode.node.js';
import { writeAtomically } from '../../media/files.node.js';
import type { Picture } from '../../media/picture.js';
import { type MtcnnNet, NET_SIZE } from '../../nets/mtcnn.js';
import type { StateDict } from '../../weights/state_dict.js';
import { Random } from '../random.js';
import type { AnnotatedFace, AnnotatedPicture } from './annotations.js';
import { turnedByQuarters } from './crop.js';
import type { DetectorData } from './data.node.js';
import { Gatherer, QUOTA } from './gather.js';
import { SampleSink } from './pack.node.js';
import type { Samples } from './vary.js';

export interface CollectOptions {
  out: string;
  seed: number;
  /** Mining looks only at every n-th picture. Default 1: all. */
  mineEvery?: number;
  /** Smallest face that mining looks for, in pixels; the nets see all sizes alike. Default 20. */
  mineFace?: number;
  /** Whose proposals O-Net learns from: R-Net's (the default), or P-Net's, which needs no R-Net. */
  onetAfter?: 'pnet' | 'rnet';
  /** A detector whose finds in the pictures of background are left out. A run is resumed only with the same hash. */
  mask?: { state: StateDict; hash: string };
  signal?: AbortSignal;
}

export interface RecipeHooks {
  note?(line: string): void;
  /** Progress within a piece of work; `total` steps or pictures. */
  progress?(what: string, done: number, total: number, detail?: string): void;
}

/**
 * Below the detector's own, so that more mistakes are seen than users would see: O-Net would learn the few by heart that a
 * good R-Net is half sure of.
 */
const MINING_THRESHOLDS = [0.5, 0.02, 0.5] as const;

/** R- and O-Net learn backgrounds from each picture turned by each number of quarters: on its side it shows others. */
const QUARTERS = [0, 1, 2, 3] as const;

/**
 * @param state the nets before `net`
 * @throws WfrError when the net would have nothing to learn from; AbortError when stopped.
 */
export async function collectSamples(
  gpu: Gpu,
  net: MtcnnNet,
  data: DetectorData,
  state: StateDict,
  options: CollectOptions,
  hooks: RecipeHooks,
): Promise<Samples> {
  return new Collector(gpu, net, data, state, options, hooks).collect();
}

class Collector {
  constructor(
    private readonly gpu: Gpu,
    private readonly net: MtcnnNet,
    private readonly data: DetectorData,
    private readonly state: StateDict,
    private readonly o: CollectOptions,
    private readonly hooks: RecipeHooks,
  ) {}

  async collect(): Promise<Samples> {
    const { net } = this;
    const sink = new SampleSink(NET_SIZE[net]);
    const gatherer = new Gatherer(net, sink);
    const { pictures, listed } = this.data;
    const backgrounds = await this.backgrounds();
    const detector = net === 'pnet' ? undefined : Mtcnn.create(this.gpu, { state: this.state });
    const after = net === 'onet' ? (this.o.onetAfter ?? 'rnet') : 'pnet';
    const total = pictures.length + backgrounds.length + listed.length;
    let [done, unread] = [0, 0];
    const each = async (list: readonly AnnotatedPicture[], take: typeof mined) => {
      for (const annotated of list) {
        this.o.signal?.throwIfAborted();
        this.hooks.progress?.(`${net} samples`, ++done, total, `${sink.count} samples`);
        const picture = await this.read(annotated.file);
        const random = Random.of(this.o.seed, 'gather', net, annotated.name);
        if (picture) await take(picture, annotated.faces, random);
        else unread++;
      }
    };
    const mined = async (picture: Picture, faces: readonly AnnotatedFace[], random: Random) => {
      const isMined = detector && done % (this.o.mineEvery ?? 1) === 0;
      for (const quarter of detector ? QUARTERS : ([0] as const)) {
        const view = turnedByQuarters(picture, faces, quarter);
        const split = random.split(quarter);
        gatherer.picture(view.picture, view.faces, split);
        if (!isMined) continue;
        const settings = { minFace: this.o.mineFace ?? 20, thresholds: MINING_THRESHOLDS };
        const proposals = await detector.propose(view.picture, after, settings);
        gatherer.proposed(view.picture, view.faces, proposals, split);
      }
    };
    try {
      await each(pictures, mined);
      await each(backgrounds, mined);
      await each(listed, async (picture, faces, random) => gatherer.listed(picture, faces, random));
    } finally {
      await detector?.destroy();
    }
    const pack = sink.pack();
    const lacks = lacking(pack.tasks);
    if (lacks.length > 0) {
      // Going on may be with other pictures of backgrounds.
      await rm(path.join(this.o.out, 'backgrounds.json'), { force: true });
      const why =
        unread > 0
          ? `${unread} of ${total} pictures could not be read. Is each where the lists of --data and --points say, seen from the list's folder?`
          : `Positives need faces of at least ${QUOTA[net].leastFace} pixels in --data, negatives room beside its faces or pictures of backgrounds (--negatives).`;
      throw new WfrError(`${net} cannot be trained, there are no ${lacks.join(' and no ')}. ${why}`);
    }
    return pack;
  }

  /** Pictures of background, with what a detector finds in them marked as nothing to learn from. */
  private async backgrounds(): Promise<AnnotatedPicture[]> {
    const file = path.join(this.o.out, 'backgrounds.json');
    if (existsSync(file)) return JSON.parse(await readFile(file, 'utf8')) as AnnotatedPicture[];
    const found: AnnotatedPicture[] = [];
    const detector = this.o.mask && Mtcnn.create(this.gpu, { state: this.o.mask.state });
    try {
      for (const [i, picture] of this.data.negatives.entries()) {
        this.o.signal?.throwIfAborted();
        let boxes: Box[] = [];
        if (detector) {
          this.hooks.progress?.('masking', i + 1, this.data.negatives.length);
          const pixels = await this.read(picture);
          if (!pixels) continue;
          boxes = (await detector.detect(pixels, { minFace: 24 })).map((f) => f.box);
        }
        const faces = boxes.map((box) => ({ box, ignored: true }));
        found.push({ file: path.resolve(picture), name: path.basename(picture), faces });
      }
    } finally {
      await detector?.destroy();
    }
    await writeAtomically(file, JSON.stringify(found));
    return found;
  }

  /** Undefined, with a note, for a picture that cannot be read. */
  private async read(file: string): Promise<Picture | undefined> {
    try {
      return await readPicture(file);
    } catch (error) {
      this.hooks.note?.(`left out: ${(error as Error).message}`);
      return undefined;
    }
  }
}

/** Without both kinds a net would learn to give the same answer always. */
export function lacking(tasks: Uint8Array): string[] {
  const lacks: string[] = [];
  if (!tasks.some((t) => t & TASK.face)) lacks.push('positives (windows on faces)');
  if (!tasks.some((t) => t & TASK.classify && !(t & TASK.face))) lacks.push('negatives (background)');
  return lacks;
}
