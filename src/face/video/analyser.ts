/**
 * From frames to frames with named faces. Faces are looked for in every Nth frame and in the frames either side of a
 * cut; a frame is handed on a little later, when it is known where its faces were found next, so that boxes between are
 * interpolated, gaps are bridged and a name is there from a face's first frame. How many frames wait is bounded.
 */
import { averaged, type Picture } from '../../media/picture.js';
import { displayed, toPicture } from '../../media/video/i420.js';
import type { TimedFrame } from '../../media/video/types.js';
import type { Box } from '../boxes.js';
import type { Face } from '../detector.js';
import type { Facebank } from '../facebank.js';
import { CutFinder } from './cuts.js';
import type { FrameView } from './finder.js';
import { qualityOf } from './gallery.js';
import { type Label, People, type PeopleOptions } from './people.js';
import { type Detection, type Track, Tracker } from './tracker.js';

export interface VideoFace extends Face {
  /** The same number in every frame in which the face was followed. */
  track: number;
  /** Whether the detector found it in this very frame; otherwise its place is interpolated. */
  seen: boolean;
  /** Absent where no recogniser was given. */
  label?: Label;
}

export interface AnalysedFrame {
  frame: TimedFrame;
  faces: VideoFace[];
  /** A portrait for tracks of which a better one than before was seen. */
  portraits: { track: number; label?: Label; quality: number; picture: Picture }[];
}

export interface AnalyserOptions extends PeopleOptions {
  /** Look for faces in every Nth frame; with 1, boxes and points are exactly those the detector gives. Default 5. */
  every?: number;
  /** Off: every frame stands alone, as if it were a picture. Default on. */
  track?: boolean;
  /** Keep a portrait of every track. */
  portraits?: boolean;
  /** Frames that may wait, in bytes. Where they would take more, faces are looked for earlier. Default 192 MiB. */
  memory?: number;
}

/** Seconds a frame waits for what comes after it. */
const LOOK_AHEAD = 0.7;
/** Detections under way at once: the GPU need not wait while the last result is worked on. */
const IN_FLIGHT = 2;
const PORTRAIT = 96;
/** Score that a followed face must reach once to be shown: what the detector takes for a face again and again, never
 * being sure of it, is mostly a fold of cloth or a shadow. */
const SURE = 0.9;

interface Waiting {
  frame: TimedFrame;
  /** Set where faces were looked for. */
  found?: Promise<Detection[]>;
  /** The first frame of a shot. */
  cut: boolean;
  done: boolean;
}

interface Portrait {
  quality: number;
  picture: Picture;
  told: boolean;
}

export class Analyser {
  readonly #tracker: Tracker;
  readonly #people: People;
  readonly #cuts = new CutFinder();
  readonly #waiting: Waiting[] = [];
  /** Tracks that frames still waiting may show. */
  #shown: Track[] = [];
  readonly #portraits = new WeakMap<Track, Portrait>();
  #sinceDetection = 0;
  #trackedTo = Number.NEGATIVE_INFINITY;
  readonly #every: number;
  readonly #tracking: boolean;

  constructor(
    private readonly find: (frame: TimedFrame) => Promise<Detection[]>,
    bank: Facebank | undefined,
    private readonly view: () => FrameView,
    private readonly options: AnalyserOptions,
  ) {
    this.#every = options.every ?? 5;
    this.#tracking = options.track ?? true;
    const exact = this.#every === 1;
    this.#tracker = new Tracker({
      threshold: options.threshold,
      smooth: !exact,
      bridge: exact ? 0 : 0.6,
      patience: this.#tracking ? 1.5 : 0,
    });
    this.#people = new People(bank, options);
  }

  async *analyse(frames: AsyncIterable<TimedFrame>): AsyncGenerator<AnalysedFrame> {
    for await (const frame of frames) {
      this.#take(frame);
      while (this.#waiting.filter((w) => w.found && !w.done).length >= IN_FLIGHT) await this.#follow();
      for (let ready = this.#next(false); ready; ready = this.#next(false)) yield ready;
    }
    // What was never looked at since the last detection: look at its last frame.
    const last = this.#waiting[this.#waiting.length - 1];
    if (last && !last.found) last.found = this.#start(last.frame);
    while (this.#waiting.some((w) => w.found && !w.done)) await this.#follow();
    for (let ready = this.#next(true); ready; ready = this.#next(true)) yield ready;
  }

  #take(frame: TimedFrame): void {
    const cut = this.#every > 1 && this.#cuts.isCut(frame);
    const before = this.#waiting[this.#waiting.length - 1];
    if (cut && before && !before.found) before.found = this.#start(before.frame);
    const due = cut || this.#sinceDetection === 0 || (this.#isFull && !before?.found);
    this.#waiting.push({ frame, cut, done: false, found: due ? this.#start(frame) : undefined });
    this.#sinceDetection = due ? 1 % this.#every : (this.#sinceDetection + 1) % this.#every;
  }

  #start(frame: TimedFrame): Promise<Detection[]> {
    const found = this.find(frame);
    // Its error is thrown where it is awaited.
    found.catch(() => {});
    return found;
  }

  /** Gives the faces of the oldest frame under detection to the tracks. */
  async #follow(): Promise<void> {
    const entry = this.#waiting.find((w) => w.found && !w.done)!;
    const faces = await entry.found!;
    const { frame } = entry;
    if (!this.#tracking || this.#waiting.some((w) => w.cut && !w.done && w.frame.index <= frame.index))
      this.#tracker.cut();
    for (const w of this.#waiting) if (w.frame.index <= frame.index) w.done = true;
    const tracks = this.#tracker.update(frame.time, faces);
    for (const [i, track] of tracks.entries()) {
      if (!this.#shown.includes(track)) this.#shown.push(track);
      this.#people.consider(track);
      if (this.options.portraits) this.#portray(frame, faces[i], track);
    }
    this.#trackedTo = frame.time;
  }

  get #isFull(): boolean {
    const bytes = this.#waiting.length * (this.#waiting[0]?.frame.data.byteLength ?? 0);
    return bytes > (this.options.memory ?? 192 * 2 ** 20);
  }

  /** The oldest waiting frame, when nothing that comes later can change it. */
  #next(ending: boolean): AnalysedFrame | undefined {
    const head = this.#waiting[0];
    if (!head) return undefined;
    const newest = this.#waiting[this.#waiting.length - 1].frame;
    const lookAhead = this.#tracking && this.#every > 1 ? LOOK_AHEAD : 0;
    const full = this.#isFull;
    const settled = full
      ? this.#trackedTo >= head.frame.time
      : this.#trackedTo >= head.frame.time + lookAhead;
    if (!ending && !(settled && (full || newest.time >= head.frame.time + lookAhead))) return undefined;
    this.#waiting.shift();
    return this.#show(head.frame);
  }

  #show(frame: TimedFrame): AnalysedFrame {
    const exact = this.#every === 1 || !this.#tracking;
    const visible: { track: Track; face: Omit<VideoFace, 'label'> }[] = [];
    for (const track of this.#shown) {
      // One sighting alone is more often a mistake of the detector than a face.
      const isFace = exact || (track.hits >= 2 && track.best >= SURE);
      const at = isFace ? track.at(frame.time) : undefined;
      if (at) {
        const { box, score, landmarks, seen } = at;
        visible.push({ track, face: { box, score, landmarks, seen, track: track.id } });
      }
      track.forgetBefore(frame.time);
    }
    this.#shown = this.#shown.filter(
      (t) => t.observations[t.observations.length - 1].time > frame.time || this.#tracker.active.includes(t),
    );
    const tracks = visible.map((v) => v.track);
    const portraits: AnalysedFrame['portraits'] = [];
    const faces = visible.map(({ track, face }): VideoFace => {
      const label = this.#people.label(
        track,
        tracks.filter((t) => t !== track),
      );
      const portrait = this.#portraits.get(track);
      if (portrait && !portrait.told) {
        portrait.told = true;
        portraits.push({ track: track.id, label, quality: portrait.quality, picture: portrait.picture });
      }
      return label ? { ...face, label: { ...label } } : face;
    });
    return { frame, faces, portraits };
  }

  #portray(frame: TimedFrame, face: Detection, track: Track): void {
    const quality = qualityOf(face);
    const known = this.#portraits.get(track);
    if (known && quality < 1.15 * known.quality) return;
    const picture = portraitOf(frame, face.box, this.view());
    if (picture) this.#portraits.set(track, { quality, picture, told: false });
  }
}

/** The face and a little around it, at most 96 pixels wide. */
function portraitOf(frame: TimedFrame, box: Box, { matrix, rotation }: FrameView): Picture | undefined {
  const side = Math.max(box.x2 - box.x1, box.y2 - box.y1) * 1.3;
  const size = displayed(frame, rotation);
  const x = Math.max(0, (box.x1 + box.x2 - side) / 2);
  const y = Math.max(0, (box.y1 + box.y2 - side) / 2);
  const width = Math.min(side, size.width - x);
  const height = Math.min(side, size.height - y);
  if (width < 2 || height < 2) return undefined;
  const whole = toPicture(frame, { x, y, width, height }, matrix, rotation);
  return averaged(whole, Math.max(1, Math.ceil(Math.max(whole.width, whole.height) / PORTRAIT)));
}
