/**
 * Verification metrics, exact and O(n log n): no grid of thresholds, every distinct distance is one.
 *
 * Distances are squared Euclidean distances of unit vectors, d = Σ(a−b)² = 2 − 2·cos, so 0…4. A pair counts as the
 * same person when d ≤ t. FAR(t) is the share of different-person pairs with d ≤ t, TAR(t) of same-person pairs.
 * Pairs of equal distance are accepted together: a threshold cannot part them.
 */
import { FaceError } from '../errors.js';

export interface ScoredPairs {
  /** Squared distances, 0…4. */
  distances: ArrayLike<number>;
  /** Whether the pair shows one person, in the same order. */
  same: ArrayLike<boolean | number>;
}

/** A threshold below every distance: nothing is accepted. */
export const REJECT_ALL = -1;

/** Distinct distances in rising order with the number of pairs of each kind up to and including each. */
export interface Sweep {
  thresholds: Float64Array;
  acceptedSame: Uint32Array;
  acceptedDifferent: Uint32Array;
  same: number;
  different: number;
}

/** Indices of the pairs by rising distance. @throws FaceError for lists of unequal length or distances that are not numbers ≥ 0. */
export function order({ distances, same }: ScoredPairs): Uint32Array {
  if (distances.length !== same.length) {
    throw new FaceError(`${distances.length} distances but ${same.length} labels: a pair has one of each.`);
  }
  for (let i = 0; i < distances.length; i++) {
    if (!(distances[i] >= 0 && distances[i] < Number.POSITIVE_INFINITY)) {
      throw new FaceError(
        `Pair ${i + 1} has distance ${distances[i]}; squared distances are finite and not negative.`,
      );
    }
  }
  return Uint32Array.from({ length: distances.length }, (_, i) => i).sort(
    (a, b) => distances[a] - distances[b],
  );
}

/** One pass over the pairs by rising distance. `chosen` leaves pairs out, e.g. those of a fold. */
export function sweep(
  pairs: ScoredPairs,
  sorted: Uint32Array = order(pairs),
  chosen: (pair: number) => boolean = () => true,
): Sweep {
  const thresholds = new Float64Array(sorted.length);
  const acceptedSame = new Uint32Array(sorted.length);
  const acceptedDifferent = new Uint32Array(sorted.length);
  let [n, same, different] = [0, 0, 0];
  for (const pair of sorted) {
    if (!chosen(pair)) continue;
    const distance = pairs.distances[pair];
    if (n === 0 || thresholds[n - 1] !== distance) thresholds[n++] = distance;
    if (pairs.same[pair]) same++;
    else different++;
    acceptedSame[n - 1] = same;
    acceptedDifferent[n - 1] = different;
  }
  return {
    thresholds: thresholds.subarray(0, n),
    acceptedSame: acceptedSame.subarray(0, n),
    acceptedDifferent: acceptedDifferent.subarray(0, n),
    same,
    different,
  };
}

export interface Best {
  threshold: number;
  /** 0…1. */
  accuracy: number;
}

/** The threshold with the most pairs right; on ties the smallest, which may be to reject all. */
export function bestThreshold(s: Sweep): Best {
  const total = s.same + s.different;
  if (total === 0) throw new FaceError('There are no pairs to choose a threshold on.');
  let best: Best = { threshold: REJECT_ALL, accuracy: s.different / total };
  for (let i = 0; i < s.thresholds.length; i++) {
    const accuracy = (s.acceptedSame[i] + s.different - s.acceptedDifferent[i]) / total;
    if (accuracy > best.accuracy) best = { threshold: s.thresholds[i], accuracy };
  }
  return best;
}

/** Area under the ROC curve: the chance that a same-person pair is nearer than a different-person pair, ties half. */
export function auc(s: Sweep): number {
  requireBothKinds(s);
  let [area, before, differentBefore] = [0, 0, 0];
  for (let i = 0; i < s.thresholds.length; i++) {
    area += ((s.acceptedDifferent[i] - differentBefore) * (s.acceptedSame[i] + before)) / 2;
    before = s.acceptedSame[i];
    differentBefore = s.acceptedDifferent[i];
  }
  return area / (s.same * s.different);
}

/** Equal error rate: FAR = 1 − TAR on the ROC's straight lines from (0, 0) through every threshold to (1, 1). */
export function equalErrorRate(s: Sweep): number {
  requireBothKinds(s);
  let [farBefore, tarBefore] = [0, 0];
  for (let i = 0; i < s.thresholds.length; i++) {
    const far = s.acceptedDifferent[i] / s.different;
    const tar = s.acceptedSame[i] / s.same;
    if (far + tar >= 1) {
      const step = far + tar - farBefore - tarBefore;
      return farBefore + ((far - farBefore) * (1 - farBefore - tarBefore)) / step;
    }
    [farBefore, tarBefore] = [far, tar];
  }
  return farBefore;
}

export interface OperatingPoint {
  threshold: number;
  /** Obtained, not wished. */
  far: number;
  tar: number;
}

/** Whether so many pairs of different people can show this false-accept rate: by one pair at least. */
export const measurable = (rate: number, different: number): boolean => rate * different >= 1 - 1e-9;

/** The largest threshold whose FAR does not exceed the wish. */
export function atFalseAcceptRate(s: Sweep, wished: number): OperatingPoint {
  requireBothKinds(s);
  let found = -1;
  while (
    found + 1 < s.thresholds.length &&
    s.acceptedDifferent[found + 1] <= wished * s.different * (1 + 1e-12)
  )
    found++;
  if (found < 0) return { threshold: REJECT_ALL, far: 0, tar: 0 };
  return {
    threshold: s.thresholds[found],
    far: s.acceptedDifferent[found] / s.different,
    tar: s.acceptedSame[found] / s.same,
  };
}

/** Pairs right when those with d ≤ threshold are accepted. */
export function countRight(pairs: ScoredPairs, threshold: number, chosen: Iterable<number>): number {
  let right = 0;
  for (const i of chosen) if (pairs.distances[i] <= threshold === Boolean(pairs.same[i])) right++;
  return right;
}

/** Wilson's score interval of a share, `right` of `total`; z = 1.96 for 95 %. */
export function wilsonInterval(right: number, total: number, z = 1.959963984540054): [number, number] {
  if (total === 0) return [0, 1];
  const p = right / total;
  const centre = p + (z * z) / (2 * total);
  const half = z * Math.sqrt((p * (1 - p)) / total + (z * z) / (4 * total * total));
  const divisor = 1 + (z * z) / total;
  // The ends are exact where all or none are right; elsewhere rounding never matters.
  return [right === 0 ? 0 : (centre - half) / divisor, right === total ? 1 : (centre + half) / divisor];
}

export function meanAndDeviation(values: readonly number[]): { mean: number; std: number } {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
  return { mean, std: Math.sqrt(variance) };
}

/** Squared distance of two unit vectors, summed in f64. */
export function squaredDistance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length)
    throw new FaceError(`Embeddings of ${a.length} and ${b.length} numbers cannot be compared.`);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
}

/** Cosine similarity of unit vectors at squared distance d. */
export const similarityOf = (distance: number): number => 1 - distance / 2;

function requireBothKinds(s: Sweep): void {
  if (s.same === 0 || s.different === 0) {
    throw new FaceError(
      `This needs pairs of both kinds; there are ${s.same} of one person and ${s.different} of different people.`,
    );
  }
}
