/** Deciding whose face an embedding is, by cosine similarity to the embeddings of known people. */

/**
 * How a person's several pictures count: the mean of their similarities, the best one, or the similarity to their
 * normalised mean embedding.
 */
export type MatchRule = 'mean' | 'max' | 'centroid';

export interface MatchOptions {
  /** Similarity from which a face is named. */
  threshold: number;
  rule?: MatchRule;
  /** Half the width of the band around the threshold in which a name is called uncertain. Default 0.03. */
  band?: number;
}

export interface Match {
  /** Who it is; absent where that is unknown. */
  name?: string;
  /** The most similar person, however little; absent where the bank is empty. */
  nearest?: string;
  /** Cosine similarity by the rule, −1…1. */
  similarity?: number;
  /** `known` above the band, `uncertain` within it, `unknown` below. */
  status: 'known' | 'uncertain' | 'unknown';
}

export const DEFAULT_BAND = 0.03;

/**
 * Similarity from which two pictures are taken for one person where the weights carry no calibrated threshold:
 * for ArcFace-like embeddings different people rarely reach it.
 */
export const DEFAULT_THRESHOLD = 0.4;

export const cosine = (a: Float32Array, b: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/** @param people unit embeddings by name. */
export function match(
  embedding: Float32Array,
  people: ReadonlyMap<string, readonly Float32Array[]>,
  options: MatchOptions,
): Match {
  let best: { name: string; similarity: number } | undefined;
  for (const [name, known] of people) {
    if (known.length === 0) continue;
    const similarity = similarityTo(embedding, known, options.rule ?? 'mean');
    if (!best || similarity > best.similarity) best = { name, similarity };
  }
  if (!best) return { status: 'unknown' };
  const band = options.band ?? DEFAULT_BAND;
  const distance = best.similarity - options.threshold;
  const nearest = { nearest: best.name, similarity: best.similarity };
  if (distance < -band) return { ...nearest, status: 'unknown' };
  return { name: best.name, ...nearest, status: distance >= band ? 'known' : 'uncertain' };
}

function similarityTo(embedding: Float32Array, known: readonly Float32Array[], rule: MatchRule): number {
  if (rule === 'centroid') {
    const sum = new Float32Array(embedding.length);
    for (const k of known) for (let i = 0; i < sum.length; i++) sum[i] += k[i];
    return cosine(embedding, sum) / Math.max(Math.hypot(...sum), 1e-12);
  }
  const similarities = known.map((k) => cosine(embedding, k));
  return rule === 'max'
    ? Math.max(...similarities)
    : similarities.reduce((a, b) => a + b, 0) / similarities.length;
}
