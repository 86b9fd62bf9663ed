/**
 * Keeps faces apart from frame to frame. Each face is a track: a constant-velocity filter predicts where it will be, and
 * new detections go to tracks by the assignment that fits best in place (IoU with the prediction) and in looks (cosine
 * to the track's best embeddings). Times are in seconds, so that frames may come at any rate.
 */
import { type Box, iou } from '../boxes.js';
import type { Face } from '../detector.js';
import { cosine } from '../match.js';
import { assign } from './assign.js';
import { Gallery, qualityOf } from './gallery.js';
import { Kalman1D } from './kalman.js';

export interface Detection extends Face {
  /** Unit vector; without it tracks go by place alone. */
  embedding?: Float32Array;
}

/** A face of a track at a moment, in pixels. */
export interface Observation extends Face {
  time: number;
  /** When faces were looked for before; at that look, or since, this one was seen. */
  lookedBefore: number;
}

export interface TrackerOptions {
  /** Similarity from which two faces are taken for one person. */
  threshold: number;
  /** Smooth boxes and landmarks. Default true. */
  smooth?: boolean;
  /** Seconds after which a face that was not found again has gone; longer where looks are rarer. Default 1.5. */
  patience?: number;
  /** Longest gap between sightings that is filled by interpolation, in seconds; between two looks always. Default 0.6. */
  bridge?: number;
}

/** In units of the face's size: noise of a measured side and centre, and how fast heads change speed. */
const NOISE = 0.04;
const ACCELERATION = 6;
const FIRST_SPEED = 2;
/** Seconds over which landmarks within the box are averaged. */
const SETTLE = 0.06;

export class Track {
  readonly gallery = new Gallery();
  /** Sightings that frames still to be shown may need. */
  readonly observations: Observation[] = [];
  /** How often the face was found. */
  hits = 0;
  /** Score of the surest sighting. */
  best = 0;
  lastSeen: number;
  readonly #filters: { cx: Kalman1D; cy: Kalman1D; w: Kalman1D; h: Kalman1D };
  #filterTime: number;
  #landmarks: [number, number][];

  constructor(
    readonly id: number,
    first: Detection,
    time: number,
    private readonly options: Readonly<Required<TrackerOptions>>,
  ) {
    const [cx, cy, w, h] = measure(first.box);
    const size = Math.sqrt(w * h);
    const filter = (value: number) => new Kalman1D(value, NOISE * size, FIRST_SPEED * size);
    this.#filters = { cx: filter(cx), cy: filter(cy), w: filter(w), h: filter(h) };
    this.#filterTime = time;
    this.lastSeen = time;
    this.#landmarks = relative(first);
    this.#note(first, first, time, time);
  }

  /** Where the face should be. */
  predicted(time: number): Box {
    const dt = time - this.#filterTime;
    const { cx, cy, w, h } = this.#filters;
    // Sizes are not extrapolated: they change little, and a wrong trend would make a box vanish.
    return boxOf(cx.ahead(dt), cy.ahead(dt), Math.max(1, w.position), Math.max(1, h.position));
  }

  /** @param lookedBefore when faces were looked for the time before */
  see(face: Detection, time: number, lookedBefore: number): void {
    const dt = time - this.#filterTime;
    const values = measure(face.box);
    const size = Math.sqrt(values[2] * values[3]);
    const { cx, cy, w, h } = this.#filters;
    for (const [i, filter] of [cx, cy, w, h].entries()) {
      filter.predict(dt, ACCELERATION * size);
      filter.update(values[i], NOISE * size);
    }
    this.#filterTime = time;
    const share = 1 - Math.exp(-dt / SETTLE);
    const now = relative(face);
    this.#landmarks = this.#landmarks.map(([x, y], i) => [
      x + (now[i][0] - x) * share,
      y + (now[i][1] - y) * share,
    ]);
    if (!this.options.smooth) this.#note(face, face, time, lookedBefore);
    else {
      const box = boxOf(cx.position, cy.position, Math.max(1, w.position), Math.max(1, h.position));
      this.#note(
        face,
        { box, score: face.score, landmarks: absolute(box, this.#landmarks) },
        time,
        lookedBefore,
      );
    }
  }

  #note(seen: Detection, shown: Face, time: number, lookedBefore: number): void {
    this.hits++;
    this.lastSeen = time;
    this.best = Math.max(this.best, seen.score);
    const { box, score, landmarks } = shown;
    this.observations.push({ time, lookedBefore, box, score, landmarks });
    if (seen.embedding) this.gallery.add(seen.embedding, qualityOf(seen));
  }

  /** The face at a moment: as seen, or between two sightings that are not too far apart. */
  at(time: number): (Observation & { seen: boolean }) | undefined {
    const after = this.observations.findIndex((o) => o.time >= time - 1e-6);
    if (after < 0) return undefined;
    const b = this.observations[after];
    if (b.time <= time + 1e-6) return { ...b, seen: true };
    const a = this.observations[after - 1];
    const bridge = this.options.bridge && Math.max(this.options.bridge, b.time - b.lookedBefore + 1e-6);
    if (!a || b.time - a.time > bridge) return undefined;
    const t = (time - a.time) / (b.time - a.time);
    const mix = (p: number, q: number) => p + (q - p) * t;
    return {
      time,
      lookedBefore: b.lookedBefore,
      box: {
        x1: mix(a.box.x1, b.box.x1),
        y1: mix(a.box.y1, b.box.y1),
        x2: mix(a.box.x2, b.box.x2),
        y2: mix(a.box.y2, b.box.y2),
      },
      score: Math.min(a.score, b.score),
      landmarks: a.landmarks.map(
        ([x, y], i) => [mix(x, b.landmarks[i][0]), mix(y, b.landmarks[i][1])] as const,
      ),
      seen: false,
    };
  }

  /** Forgets sightings that no frame from `time` on needs. */
  forgetBefore(time: number): void {
    while (this.observations.length > 1 && this.observations[1].time <= time) this.observations.shift();
  }
}

export class Tracker {
  /** Tracks that may still get sightings. */
  active: Track[] = [];
  readonly #options: Required<TrackerOptions>;
  #ids = 0;
  #time: number | undefined;

  constructor(options: TrackerOptions) {
    this.#options = { smooth: true, patience: 1.5, bridge: 0.6, ...options };
  }

  /**
   * Gives each detection to a track, old or new. Times must rise.
   * @returns the track of each detection.
   */
  update(time: number, faces: readonly Detection[]): Track[] {
    // However rarely faces are looked for, one missed look ends no track.
    const patience =
      this.#options.patience && Math.max(this.#options.patience, 2.2 * (time - (this.#time ?? time)));
    const lookedBefore = this.#time ?? time;
    this.#time = time;
    this.active = this.active.filter((t) => time - t.lastSeen <= patience);
    const columns = assign(this.active.map((track) => faces.map((face) => this.#cost(track, face, time))));
    const owners = new Array<Track | undefined>(faces.length);
    columns.forEach((column, row) => {
      if (column < 0) return;
      owners[column] = this.active[row];
      this.active[row].see(faces[column], time, lookedBefore);
    });
    return faces.map((face, i) => {
      if (owners[i]) return owners[i];
      const track = new Track(++this.#ids, face, time, this.#options);
      this.active.push(track);
      return track;
    });
  }

  /** A new shot begins: nothing is where it was. */
  cut(): void {
    this.active = [];
  }

  /** 0 for the same face in the same place … 2; infinite where it cannot be the same. */
  #cost(track: Track, face: Detection, time: number): number {
    const predicted = track.predicted(time);
    // Heads that bob, or turn back, are where they were rather than where they were going.
    const last = track.observations[track.observations.length - 1];
    const overlap = Math.max(iou(predicted, face.box), iou(last.box, face.box));
    const mean = track.gallery.mean;
    const similarity = mean && face.embedding ? cosine(mean, face.embedding) : undefined;
    if (similarity === undefined)
      return overlap >= 0.25 || near(predicted, face.box, 0.7) ? 2 - 2 * overlap : Number.POSITIVE_INFINITY;
    const { threshold } = this.#options;
    const gap = time - track.lastSeen;
    // Where it is expected a face need not look its best; the longer ago it was seen, the more it must.
    const inPlace = overlap >= 0.4 && similarity > threshold * Math.min(1, 1.5 * gap);
    const likely = overlap >= 0.2 && similarity >= threshold - 0.2;
    // Hidden or fast: it may have gone some way, but then it must look like itself.
    const again = similarity >= threshold && near(predicted, face.box, 1 + 4 * gap);
    if (!inPlace && !likely && !again) return Number.POSITIVE_INFINITY;
    return 1 - overlap + (1 - Math.max(0, similarity));
  }
}

/** Whether centres are within `reach` face sizes and sizes within a factor of two. */
function near(a: Box, b: Box, reach: number): boolean {
  const [ax, ay, aw, ah] = measure(a);
  const [bx, by, bw, bh] = measure(b);
  const ratio = Math.sqrt((aw * ah) / (bw * bh));
  return ratio < 2 && ratio > 0.5 && Math.hypot(ax - bx, ay - by) <= reach * Math.sqrt(aw * ah);
}

const measure = ({ x1, y1, x2, y2 }: Box): [number, number, number, number] => [
  (x1 + x2) / 2,
  (y1 + y2) / 2,
  x2 - x1,
  y2 - y1,
];

const boxOf = (cx: number, cy: number, w: number, h: number): Box => ({
  x1: cx - w / 2,
  y1: cy - h / 2,
  x2: cx + w / 2,
  y2: cy + h / 2,
});

/** Landmarks as fractions of the box, from its centre, and back. */
function relative({ box, landmarks }: Face): [number, number][] {
  const [cx, cy, w, h] = measure(box);
  return landmarks.map(([x, y]) => [(x - cx) / w, (y - cy) / h]);
}

function absolute(box: Box, points: readonly [number, number][]): [number, number][] {
  const [cx, cy, w, h] = measure(box);
  return points.map(([x, y]) => [cx + x * w, cy + y * h]);
}
