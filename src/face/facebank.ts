import { cosine, type Match, type MatchOptions, match } from './match.js';

/** One picture of a person. */
export interface BankEntry {
  name: string;
  /** Picture file, relative to the bank. */
  picture: string;
  readonly embedding: Float32Array;
}

/** Known people and the embeddings of their pictures, in memory. */
export class Facebank {
  readonly #people = new Map<string, BankEntry[]>();
  /** Their embeddings as they are matched, until somebody comes or goes: gathering takes longer than comparing. */
  #embeddings?: Map<string, Float32Array[]>;

  constructor(entries: Iterable<BankEntry> = []) {
    for (const entry of entries) this.add(entry);
  }

  add(entry: BankEntry): void {
    const known = this.#people.get(entry.name);
    if (known) known.push(entry);
    else this.#people.set(entry.name, [entry]);
    this.#embeddings = undefined;
  }

  /** @returns whether the person was there. */
  remove(name: string): boolean {
    this.#embeddings = undefined;
    return this.#people.delete(name);
  }

  get names(): string[] {
    return [...this.#people.keys()];
  }

  entries(name?: string): BankEntry[] {
    return name === undefined ? [...this.#people.values()].flat() : [...(this.#people.get(name) ?? [])];
  }

  match(embedding: Float32Array, options: MatchOptions): Match {
    this.#embeddings ??= new Map(
      [...this.#people].map(([name, list]) => [name, list.map((e) => e.embedding)]),
    );
    return match(embedding, this.#embeddings, options);
  }

  /** Pairs of pictures of different people that are as alike as one person's. */
  lookalikes(threshold: number): { a: BankEntry; b: BankEntry; similarity: number }[] {
    const found: { a: BankEntry; b: BankEntry; similarity: number }[] = [];
    const all = this.entries();
    for (const [i, a] of all.entries()) {
      for (const b of all.slice(i + 1)) {
        const similarity = cosine(a.embedding, b.embedding);
        if (a.name !== b.name && similarity >= threshold) found.push({ a, b, similarity });
      }
    }
    return found.sort((p, q) => q.similarity - p.similarity);
  }

  /** Pictures that are unlike every other picture of the same person. */
  outliers(threshold: number): { entry: BankEntry; similarity: number }[] {
    const found: { entry: BankEntry; similarity: number }[] = [];
    for (const list of this.#people.values()) {
      if (list.length < 2) continue;
      for (const entry of list) {
        const best = Math.max(
          ...list.filter((e) => e !== entry).map((e) => cosine(e.embedding, entry.embedding)),
        );
        if (best < threshold) found.push({ entry, similarity: best });
      }
    }
    return found.sort((p, q) => p.similarity - q.similarity);
  }
}
