/** Who appears when: gathered frame by frame, small however long the video is. */
import type { Picture } from '../../media/picture.js';
import type { AnalysedFrame, VideoFace } from './analyser.js';

export interface Appearance {
  /** Seconds on the video's clock. */
  start: number;
  end: number;
}

export interface Person {
  /** A name of the bank, `unknown 3`, or `faces` where no recogniser was there to tell people apart. */
  name: string;
  known: boolean;
  /** Seconds in sight. */
  seconds: number;
  frames: number;
  appearances: (Appearance & { portrait?: Picture; quality?: number })[];
}

/** Shorter absences do not end an appearance. */
const GAP = 1;
/** Portraits of the earliest appearances are kept; a timeline of more would be unreadable anyway. */
const PORTRAITS_EACH = 40;

export class Appearances {
  readonly #people = new Map<string, Person>();
  #frames = 0;

  get frames(): number {
    return this.#frames;
  }

  add({ frame, faces, portraits }: AnalysedFrame): void {
    this.#frames++;
    const seen = new Set<string>();
    for (const face of faces) {
      const name = nameOf(face);
      const person = this.#person(name, face);
      let last = person.appearances[person.appearances.length - 1];
      const end = frame.time + frame.duration;
      if (!last || frame.time - last.end > GAP) {
        last = { start: frame.time, end };
        person.appearances.push(last);
      }
      last.end = Math.max(last.end, end);
      if (!seen.has(name)) {
        person.seconds += frame.duration;
        person.frames++;
      }
      seen.add(name);
      const portrait = portraits.find((p) => p.track === face.track);
      if (
        portrait &&
        person.appearances.length <= PORTRAITS_EACH &&
        portrait.quality > (last.quality ?? Number.NEGATIVE_INFINITY)
      ) {
        last.quality = portrait.quality;
        last.portrait = portrait.picture;
      }
    }
  }

  /** Everyone, those seen longest first. */
  people(): Person[] {
    return [...this.#people.values()].sort((a, b) => b.seconds - a.seconds);
  }

  #person(name: string, face: VideoFace): Person {
    let person = this.#people.get(name);
    if (!person) {
      const known = face.label !== undefined && face.label.status !== 'unknown';
      person = { name, known, seconds: 0, frames: 0, appearances: [] };
      this.#people.set(name, person);
    }
    return person;
  }
}

const nameOf = (face: VideoFace): string => face.label?.name ?? 'faces';
