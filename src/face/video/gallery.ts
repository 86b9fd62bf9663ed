import type { Face } from '../detector.js';
import { cosine } from '../match.js';

/** How much of a face's embedding can be trusted, 0…1: sure of being a face, large, seen from the front. */
export function qualityOf({ box, score, landmarks }: Face): number {
  const [[leftX, leftY], [rightX, rightY], [noseX, noseY]] = landmarks;
  const [dx, dy] = [rightX - leftX, rightY - leftY];
  const eyes = Math.hypot(dx, dy);
  // How far along the line between the eyes the nose lies; 0.5 from the front.
  const along = ((noseX - leftX) * dx + (noseY - leftY) * dy) / Math.max(eyes * eyes, 1e-6);
  const frontal = Math.max(0.05, 1 - 2 * Math.abs(along - 0.5));
  return score * Math.min(1, (box.x2 - box.x1) / 80) * frontal;
}

/** The best embeddings seen of one person, and their mean. */
export class Gallery {
  readonly #entries: { embedding: Float32Array; quality: number }[] = [];
  #mean: Float32Array | undefined;

  constructor(private readonly size = 10) {}

  get count(): number {
    return this.#entries.length;
  }

  add(embedding: Float32Array, quality: number): void {
    this.#entries.push({ embedding, quality });
    if (this.#entries.length > this.size) {
      let worst = 0;
      this.#entries.forEach((e, i) => {
        if (e.quality < this.#entries[worst].quality) worst = i;
      });
      this.#entries.splice(worst, 1);
    }
    this.#mean = undefined;
  }

  /** Unit mean weighted by quality; undefined while empty. */
  get mean(): Float32Array | undefined {
    if (!this.#mean && this.#entries.length > 0) {
      const sum = new Float32Array(this.#entries[0].embedding.length);
      for (const { embedding, quality } of this.#entries)
        for (let i = 0; i < sum.length; i++) sum[i] += quality * embedding[i];
      const norm = Math.max(Math.sqrt(cosine(sum, sum)), 1e-12);
      this.#mean = sum.map((v) => v / norm);
    }
    return this.#mean;
  }
}
