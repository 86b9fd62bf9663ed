/**
 * Seeded random numbers that split: a stream is named by a seed and a path of keys, and depends on nothing else.
 * Data order and augmentation are streams of (seed, purpose, epoch, picture), so that a resumed run needs to know
 * only its step to continue with the same numbers.
 *
 * Generator: sfc32 (Doty-Humphrey's PractRand), period at least 2³². Keys are mixed in by the finaliser of
 * MurmurHash3, which makes neighbouring seeds independent.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  private constructor(private readonly hash: number) {
    this.#a = mix(hash, 0x9e3779b9);
    this.#b = mix(hash, 0x243f6a88);
    this.#c = mix(hash, 0xb7e15162);
    for (let i = 0; i < 12; i++) this.bits();
  }

  /** The stream of a seed (any whole number) and a path of keys. */
  static of(seed: number, ...path: readonly (string | number)[]): Random {
    return new Random(path.reduce(keyed, mix(seed | 0, Math.floor(seed / 2 ** 32) | 0)));
  }

  /** A stream of its own under this one's name; how much was drawn from this one does not matter. */
  split(...path: readonly (string | number)[]): Random {
    return new Random(path.reduce(keyed, this.hash));
  }

  /** 32 random bits. */
  bits(): number {
    const t = (this.#a + this.#b + this.#counter++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  /** In [0, 1). */
  next(): number {
    return this.bits() / 2 ** 32;
  }

  /** In [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * this.next();
  }

  /** A whole number in [0, n). */
  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** Normal with mean 0 and deviation 1 (Box & Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next());
  }

  /** 0 … n − 1 in random order (Fisher & Yates). */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const swapped = order[i];
      order[i] = order[j];
      order[j] = swapped;
    }
    return order;
  }
}

function mix(hash: number, value: number): number {
  let h = Math.imul(hash ^ value, 0x85ebca6b) + 0x6d2b79f5;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

function keyed(hash: number, key: string | number): number {
  if (typeof key === 'number') return mix(hash, key | 0);
  let h = mix(hash, key.length);
  for (let i = 0; i < key.length; i++) h = mix(h, key.charCodeAt(i));
  return h;
}
