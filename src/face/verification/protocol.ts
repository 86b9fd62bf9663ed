/**
 * LFW's protocol (Huang et al. 2007, "restricted" view 2) for any number of folds: the threshold for a fold is
 * chosen on the other folds, so no pair is judged by a threshold that has seen it.
 */
import { FaceError } from '../errors.js';
import {
  atFalseAcceptRate,
  auc,
  type Best,
  bestThreshold,
  countRight,
  equalErrorRate,
  meanAndDeviation,
  measurable,
  order,
  type ScoredPairs,
  sweep,
  wilsonInterval,
} from './metrics.js';

export interface FoldResult {
  /** Squared distance up to which a pair counts as one person, from the other folds. */
  threshold: number;
  /** 0…1, on this fold. */
  accuracy: number;
  pairs: number;
}

export interface FarMeasured {
  wished: number;
  /** TAR over the folds, each at the threshold that the other folds give for the wished FAR. */
  tar: number;
  std: number;
  /** FAR that the folds really had at these thresholds. */
  far: number;
  /** All pairs at one threshold: the point of the ROC curve. */
  pooled: { tar: number; far: number; threshold: number };
}

/** `tar` and the rest are null where the pairs of different people are fewer than 1 / wished: not measurable. */
export type FarResult = FarMeasured | { wished: number; tar: null; std: null; far: null; pooled: null };

export interface Verification {
  pairs: number;
  same: number;
  different: number;
  folds: FoldResult[];
  accuracy: {
    mean: number;
    /** Population standard deviation over the folds. */
    std: number;
    /** Wilson's 95 % interval of the share of pairs that were judged right, taking pairs as independent. */
    interval: [number, number];
  };
  /** NaN where there are pairs of one kind only. */
  auc: number;
  eer: number;
  tarAtFar: FarResult[];
  /** Threshold chosen on the test pairs themselves, as the original project did: optimistic, for comparison only. */
  optimistic: Best;
}

/** Contiguous folds over n pairs: the first `n mod count` have one pair more. */
export function contiguousFolds(n: number, count = 10): number[] {
  return Array.from({ length: count }, (_, k) => Math.floor(n / count) + (k < n % count ? 1 : 0));
}

/**
 * @param foldSizes pairs in each fold, in file order; their sum is the number of pairs.
 * @param rates wished false-accept rates.
 * @throws FaceError for fewer than two folds, empty folds, or sizes that do not add up.
 */
export function evaluate(
  pairs: ScoredPairs,
  foldSizes: readonly number[],
  rates: readonly number[] = [1e-2, 1e-3],
): Verification {
  const n = pairs.distances.length;
  const total = foldSizes.reduce((a, b) => a + b, 0);
  if (total !== n) throw new FaceError(`The folds hold ${total} pairs, the list has ${n}.`);
  if (foldSizes.length < 2) {
    throw new FaceError(
      'The protocol needs at least two folds: the threshold for one is chosen on the others.',
    );
  }
  if (foldSizes.some((size) => size < 1))
    throw new FaceError(`${n} pairs do not fill ${foldSizes.length} folds.`);
  const sorted = order(pairs);
  const foldOf = new Uint16Array(n);
  let at = 0;
  for (const [fold, size] of foldSizes.entries()) {
    foldOf.fill(fold, at, at + size);
    at += size;
  }
  const all = sweep(pairs, sorted);
  const both = all.same > 0 && all.different > 0;
  const others = foldSizes.map((_, fold) => sweep(pairs, sorted, (pair) => foldOf[pair] !== fold));
  let right = 0;
  let start = 0;
  const folds = others.map((rest, fold): FoldResult => {
    const { threshold } = bestThreshold(rest);
    const size = foldSizes[fold];
    const correct = countRight(pairs, threshold, range(start, start + size));
    right += correct;
    start += size;
    return { threshold, accuracy: correct / size, pairs: size };
  });
  const { mean, std } = meanAndDeviation(folds.map((f) => f.accuracy));
  return {
    pairs: n,
    same: all.same,
    different: all.different,
    folds,
    accuracy: { mean, std, interval: wilsonInterval(right, n) },
    auc: both ? auc(all) : Number.NaN,
    eer: both ? equalErrorRate(all) : Number.NaN,
    tarAtFar: both
      ? rates.map((rate) =>
          measurable(rate, all.different)
            ? tarOverFolds(pairs, others, foldSizes, rate, atFalseAcceptRate(all, rate))
            : { wished: rate, tar: null, std: null, far: null, pooled: null },
        )
      : [],
    optimistic: bestThreshold(all),
  };
}

function tarOverFolds(
  pairs: ScoredPairs,
  others: readonly ReturnType<typeof sweep>[],
  foldSizes: readonly number[],
  wished: number,
  pooled: FarMeasured['pooled'],
): FarMeasured {
  const tars: number[] = [];
  const fars: number[] = [];
  let start = 0;
  for (const [fold, rest] of others.entries()) {
    const end = start + foldSizes[fold];
    if (rest.same > 0 && rest.different > 0) {
      const { threshold } = atFalseAcceptRate(rest, wished);
      const counts = { same: 0, different: 0, tar: 0, far: 0 };
      for (let i = start; i < end; i++) {
        const accepted = pairs.distances[i] <= threshold ? 1 : 0;
        if (pairs.same[i]) [counts.same, counts.tar] = [counts.same + 1, counts.tar + accepted];
        else [counts.different, counts.far] = [counts.different + 1, counts.far + accepted];
      }
      // A fold with pairs of one kind says nothing about the other rate.
      if (counts.same > 0) tars.push(counts.tar / counts.same);
      if (counts.different > 0) fars.push(counts.far / counts.different);
    }
    start = end;
  }
  const { mean, std } = meanAndDeviation(tars);
  return { wished, tar: mean, std, far: meanAndDeviation(fars).mean, pooled };
}

function* range(from: number, to: number): Generator<number> {
  for (let i = from; i < to; i++) yield i;
}
