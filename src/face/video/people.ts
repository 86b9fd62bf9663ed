/**
 * Who the tracks are. A name comes from a track's best embeddings together, never from one frame, and changes only when
 * several decisions in a row agree. People who are not in the bank are numbered, and known again by their looks.
 */
import type { Facebank } from '../facebank.js';
import { cosine, type Match, type MatchRule } from '../match.js';
import { Gallery } from './gallery.js';
import type { Track } from './tracker.js';

export interface Label extends Match {
  /** A name of the bank, or `unknown 3`. */
  name: string;
}

export interface PeopleOptions {
  threshold: number;
  rule?: MatchRule;
}

/** Decisions in a row that change a label which has been shown. */
const VOTES = 3;

interface Stranger {
  number: number;
  gallery: Gallery;
}

interface Opinion {
  match: Match;
  label?: Label;
  stranger?: Stranger;
  against: { text: string; votes: number };
}

export class People {
  readonly #opinions = new WeakMap<Track, Opinion>();
  readonly #strangers: Stranger[] = [];

  constructor(
    private readonly bank: Facebank | undefined,
    private readonly options: PeopleOptions,
  ) {}

  /** Looks again at a track that has just been seen. */
  consider(track: Track): void {
    const { mean } = track.gallery;
    if (!mean) return;
    const found: Match = this.bank?.match(mean, this.options) ?? { status: 'unknown' };
    const opinion = this.#opinions.get(track);
    if (!opinion) {
      this.#opinions.set(track, { match: found, against: { text: '', votes: 0 } });
      return;
    }
    opinion.stranger?.gallery.add(mean, 1);
    const { label, against } = opinion;
    if (!label || sameVerdict(found, opinion.match)) {
      opinion.match = found;
      against.votes = 0;
      if (label && label.status !== 'unknown') label.similarity = found.similarity;
      return;
    }
    const text = `${found.status} ${found.status === 'unknown' ? '' : found.name}`;
    against.votes = against.text === text ? against.votes + 1 : 1;
    against.text = text;
    if (against.votes < VOTES) return;
    opinion.match = found;
    opinion.label = undefined;
    against.votes = 0;
  }

  /**
   * What to write at a track that is being shown.
   * @param others the other tracks in the same frame: one person is not in two places
   */
  label(track: Track, others: readonly Track[]): Label | undefined {
    const opinion = this.#opinions.get(track);
    if (!opinion) return undefined;
    opinion.label ??= this.#decide(track, opinion, others);
    return opinion.label;
  }

  #decide(track: Track, opinion: Opinion, others: readonly Track[]): Label {
    const { match } = opinion;
    if (match.status !== 'unknown' && match.name !== undefined) {
      opinion.stranger = undefined;
      return { ...match, name: match.name };
    }
    opinion.stranger ??= this.#recall(track, others) ?? this.#meet();
    opinion.stranger.gallery.add(track.gallery.mean!, 1);
    return { status: 'unknown', name: `unknown ${opinion.stranger.number}`, similarity: match.similarity };
  }

  /** The stranger this track shows again, if it looks like one who is not elsewhere in the frame. */
  #recall(track: Track, others: readonly Track[]): Stranger | undefined {
    const busy = new Set(others.map((t) => this.#opinions.get(t)?.stranger));
    const mean = track.gallery.mean!;
    let best: { stranger: Stranger; similarity: number } | undefined;
    for (const stranger of this.#strangers) {
      if (busy.has(stranger)) continue;
      const similarity = cosine(mean, stranger.gallery.mean!);
      if (similarity >= this.options.threshold && (!best || similarity > best.similarity))
        best = { stranger, similarity };
    }
    return best?.stranger;
  }

  #meet(): Stranger {
    const stranger = { number: this.#strangers.length + 1, gallery: new Gallery(20) };
    this.#strangers.push(stranger);
    return stranger;
  }
}

const sameVerdict = (a: Match, b: Match): boolean =>
  a.status === b.status && (a.status === 'unknown' || a.name === b.name);
