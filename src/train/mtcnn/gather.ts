/**
 * Samples for one net out of one picture at a time. Windows near faces, beside them and anywhere; for R- and O-Net also
 * those that the cascade so far proposes, which is how each net learns from the mistakes of the one before.
 */
import type { Box, ScoredBox } from '../../face/boxes.js';
import { inTurned, type TurnedWindow, viewOf } from '../../face/view.js';
import type { Picture } from '../../media/picture.js';
import { type MtcnnNet, NET_SIZE } from '../../nets/mtcnn.js';
import type { Random } from '../random.js';
import type { AnnotatedFace } from './annotations.js';
import { changeColours, cropTurned, cropWindow, mirrorPixels } from './crop.js';
import {
  LANDMARK,
  type Lesson,
  lessonOf,
  mirrorFace,
  NEGATIVE,
  POSITIVE,
  pointsOf,
  regressionOf,
  windowAnywhere,
  windowBeside,
  windowNear,
} from './samples.js';

/** Takes a sample: task bits, RGB bytes, box and points targets. */
export interface Sink {
  add(tasks: number, pixels: Uint8Array, box?: ArrayLike<number>, points?: ArrayLike<number>): void;
}

/** How many windows a picture or face gives at most. */
export interface Quota {
  /** Near each face: positives, part faces. */
  positives: number;
  parts: number;
  /** Touching each face without being one. */
  beside: number;
  /** Background anywhere in the picture. */
  anywhere: number;
  /** Background among what the cascade proposes. */
  mined: number;
  /** Near each face of a list of single faces: positives, part faces. */
  listed: readonly [number, number];
  /** As the detector's second look shows each face whose points are known. */
  views: number;
  /** Smaller faces (longer side, pixels) are left out. */
  leastFace: number;
}

export const QUOTA: Record<MtcnnNet, Quota> = {
  pnet: {
    positives: 8,
    parts: 7,
    beside: 7,
    anywhere: 60,
    mined: 0,
    listed: [2, 1],
    views: 0,
    leastFace: 14,
  },
  rnet: {
    positives: 12,
    parts: 6,
    beside: 3,
    anywhere: 4,
    mined: 120,
    listed: [1, 1],
    views: 0,
    leastFace: 16,
  },
  onet: {
    positives: 12,
    parts: 4,
    beside: 2,
    anywhere: 6,
    mined: 120,
    listed: [2, 0],
    views: 3,
    leastFace: 20,
  },
};

/** Share of windows near faces that are turned, and how far. */
const TURNED = 0.4;
const MOST_TURN = (30 * Math.PI) / 180;
/** How far the second look may miss: turned by radians, larger or smaller by a share, moved by a share of its side. */
const MISS = { turn: 0.1, size: 0.08, move: 0.04 };
/** Tries for each window that is wanted. */
const PATIENCE = 5;

export class Gatherer {
  readonly #pixels: Uint8Array;

  constructor(
    readonly net: MtcnnNet,
    private readonly sink: Sink,
    readonly quota: Quota = QUOTA[net],
  ) {
    this.#pixels = new Uint8Array(NET_SIZE[net] ** 2 * 3);
  }

  /** A picture all of whose faces are annotated. */
  picture(p: Picture, faces: readonly AnnotatedFace[], random: Random): void {
    const { positives, parts, beside, anywhere, leastFace } = this.quota;
    for (const face of faces) {
      const { box, ignored } = face;
      if (ignored || Math.max(box.x2 - box.x1, box.y2 - box.y1) < leastFace) continue;
      this.near(p, box, faces, [positives, parts], TURNED, random);
      this.views(p, face, faces, random);
      for (let k = 0; k < beside; k++) this.negative(p, windowBeside(box, random), faces, random);
    }
    for (let k = 0; k < anywhere; k++)
      this.negative(p, windowAnywhere(p.width, p.height, random), faces, random);
  }

  /** An aligned or otherwise lone face: what surrounds it is not background to learn from. */
  listed(p: Picture, faces: readonly AnnotatedFace[], random: Random): void {
    for (const face of faces) {
      this.near(p, face.box, faces, this.quota.listed, 1, random);
      this.views(p, face, faces, random);
    }
  }

  /** What the cascade proposes, in its coordinates. */
  proposed(p: Picture, faces: readonly AnnotatedFace[], boxes: readonly ScoredBox[], random: Random): void {
    const windows = boxes.map((b) => ({ x1: b.x1 - 1, y1: b.y1 - 1, x2: b.x2, y2: b.y2 }));
    const negatives: Box[] = [];
    for (const w of windows) {
      const lesson = lessonOf(w, faces);
      if (lesson?.tasks === NEGATIVE) negatives.push(w);
      else if (lesson) this.upright(p, w, lesson, random);
    }
    for (const i of random.permutation(negatives.length).slice(0, this.quota.mined))
      this.upright(p, negatives[i], { tasks: NEGATIVE }, random);
  }

  private near(
    p: Picture,
    box: Box,
    faces: readonly AnnotatedFace[],
    [positives, parts]: readonly [number, number],
    turned: number,
    random: Random,
  ): void {
    for (let k = (positives + parts) * PATIENCE; k > 0 && positives + parts > 0; k--) {
      const w = windowNear(box, random);
      const isTurned = random.chance(turned);
      const angle = isTurned ? random.between(-MOST_TURN, MOST_TURN) * random.next() : 0;
      const view = isTurned ? seenIn(turnedBy(w, angle), faces) : undefined;
      const lesson = lessonOf(view?.window ?? w, view?.faces ?? faces);
      if (!lesson || lesson.tasks === NEGATIVE) continue;
      const isPositive = (lesson.tasks & POSITIVE) === POSITIVE;
      if (isPositive ? positives <= 0 : parts <= 0) continue;
      if (view) this.turned(p, view, lesson, random);
      else if (!this.upright(p, w, lesson, random)) continue;
      if (isPositive) positives--;
      else parts--;
    }
  }

  /** A face as the second look shows it, which lies where the first one's points put it: a little off. */
  private views(p: Picture, face: AnnotatedFace, faces: readonly AnnotatedFace[], random: Random): void {
    if (!face.points) return;
    const { centre, side, angle } = viewOf(face.points);
    for (let k = 0; k < this.quota.views; k++) {
      const off = () => random.between(-MISS.move, MISS.move) * side;
      const view = seenIn(
        {
          centre: [centre[0] + off(), centre[1] + off()],
          side: side * Math.exp(random.between(-MISS.size, MISS.size)),
          angle: angle + random.between(-MISS.turn, MISS.turn),
        },
        faces,
      );
      const lesson = lessonOf(view.window, view.faces);
      if (lesson && lesson.tasks & LANDMARK) this.turned(p, view, lesson, random);
    }
  }

  private turned(p: Picture, { turned, window }: View, lesson: Lesson, random: Random): void {
    cropTurned(p, turned, NET_SIZE[this.net], this.#pixels);
    this.finish(window, lesson, random);
  }

  private negative(p: Picture, w: Box, faces: readonly AnnotatedFace[], random: Random): void {
    const lesson = lessonOf(w, faces);
    if (lesson?.tasks === NEGATIVE) this.upright(p, w, lesson, random);
  }

  private upright(p: Picture, w: Box, lesson: Lesson, random: Random): boolean {
    if (!cropWindow(p, w, NET_SIZE[this.net], this.#pixels)) return false;
    this.finish(w, lesson, random);
    return true;
  }

  /** Mirror, colours, targets. */
  private finish(w: Box, { tasks, face }: Lesson, random: Random): void {
    const size = NET_SIZE[this.net];
    const isMirrored = random.chance(0.5);
    if (isMirrored) mirrorPixels(this.#pixels, size);
    changeColours(this.#pixels, size, random);
    const seen = face && isMirrored ? mirrorFace(face, w) : face;
    const points = seen?.points && pointsOf(w, seen.points);
    this.sink.add(tasks, this.#pixels, seen && regressionOf(this.net, w, seen.box), points);
  }
}

/** A turned window, and the faces as it sees them: upright in a frame that begins at its corner. */
interface View {
  turned: TurnedWindow;
  window: Box;
  faces: AnnotatedFace[];
}

const turnedBy = (w: Box, angle: number): TurnedWindow => ({
  centre: [(w.x1 + w.x2) / 2, (w.y1 + w.y2) / 2],
  side: w.x2 - w.x1,
  angle,
});

function seenIn(turned: TurnedWindow, faces: readonly AnnotatedFace[]): View {
  const { side } = turned;
  const place = (point: readonly [number, number]) =>
    inTurned(point, turned).map((v) => v * side) as [number, number];
  return {
    turned,
    window: { x1: 0, y1: 0, x2: side, y2: side },
    faces: faces.map(({ box, ignored, points }) => {
      const [x, y] = place([(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2]);
      const [w2, h2] = [(box.x2 - box.x1) / 2, (box.y2 - box.y1) / 2];
      return {
        // A face turned by little fills about the same box round its middle.
        box: { x1: x - w2, y1: y - h2, x2: x + w2, y2: y + h2 },
        ignored,
        points: points?.map(place),
      };
    }),
  };
}
