import { describe, expect, it } from 'vitest';
import {
  atFalseAcceptRate,
  auc,
  bestThreshold,
  equalErrorRate,
  REJECT_ALL,
  type ScoredPairs,
  squaredDistance,
  sweep,
  wilsonInterval,
} from '../../../src/face/verification/metrics.js';
import { contiguousFolds, evaluate } from '../../../src/face/verification/protocol.js';
import { numbersOf } from '../../../src/face/verification/report.js';

/** Distances on a coarse grid, so that ties abound; same pairs nearer on average. */
function randomPairs(seed: number, n: number, grid: number): ScoredPairs {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const same = Array.from({ length: n }, () => random() < 0.4);
  const distances = same.map((s) => Math.round((random() * 2.5 + (s ? 0 : 1)) * grid) / grid);
  return { distances, same };
}

// Plain definitions, one threshold at a time: O(n²), and nothing shared with the implementation.
const rates = ({ distances, same }: ScoredPairs, t: number, chosen: number[]) => {
  const of = (kind: boolean) => chosen.filter((i) => Boolean(same[i]) === kind);
  const accepted = (list: number[]) => list.filter((i) => distances[i] <= t).length;
  const [s, d] = [of(true), of(false)];
  return {
    tar: accepted(s) / s.length,
    far: accepted(d) / d.length,
    right: accepted(s) + d.length - accepted(d),
  };
};
const candidates = ({ distances }: ScoredPairs, chosen: number[]) =>
  [REJECT_ALL, ...new Set(chosen.map((i) => distances[i]))].sort((a, b) => a - b);
const bruteBest = (pairs: ScoredPairs, chosen: number[]) => {
  let best = { threshold: Number.NaN, right: -1 };
  for (const t of candidates(pairs, chosen)) {
    const { right } = rates(pairs, t, chosen);
    if (right > best.right) best = { threshold: t, right };
  }
  return best;
};
const bruteAuc = ({ distances, same }: ScoredPairs) => {
  let [wins, total] = [0, 0];
  for (let i = 0; i < distances.length; i++) {
    for (let j = 0; j < distances.length; j++) {
      if (!same[i] || same[j]) continue;
      total++;
      wins += distances[i] < distances[j] ? 1 : distances[i] === distances[j] ? 0.5 : 0;
    }
  }
  return wins / total;
};
const bruteFar = (pairs: ScoredPairs, chosen: number[], wished: number) =>
  candidates(pairs, chosen)
    .filter((t) => rates(pairs, t, chosen).far <= wished)
    .at(-1)!;
const everyPair = (pairs: ScoredPairs) => Array.from({ length: pairs.distances.length }, (_, i) => i);

describe('known answers', () => {
  const folds = [4, 4];
  const same = [true, true, false, false, true, true, false, false];

  it('separable scores: everything right', () => {
    const pairs = { distances: [0.1, 0.4, 1.1, 1.2, 0.3, 0.4, 1.3, 1.4], same };
    const result = evaluate(pairs, folds, [0.25]);
    expect(result.accuracy).toMatchObject({ mean: 1, std: 0 });
    expect(result.auc).toBe(1);
    expect(result.eer).toBe(0);
    expect(result.optimistic).toEqual({ threshold: 0.4, accuracy: 1 });
    expect(result.folds.map((f) => f.threshold)).toEqual([0.4, 0.4]);
    // One of the four different pairs may pass at 0.25.
    expect(result.tarAtFar[0].pooled).toEqual({ threshold: 1.1, far: 0.25, tar: 1 });
  });

  it('a fold is judged by the others, not by itself', () => {
    // Each fold is separable, but at thresholds that fail on the other one.
    const pairs = { distances: [0.1, 0.1, 0.2, 0.2, 1.1, 1.1, 1.2, 1.2], same };
    const result = evaluate(pairs, folds);
    expect(result.folds).toEqual([
      { threshold: 1.1, accuracy: 0.5, pairs: 4 },
      { threshold: 0.1, accuracy: 0.5, pairs: 4 },
    ]);
    expect(result.optimistic.accuracy).toBe(0.75);
  });

  it('all distances the same: nothing can be told apart', () => {
    const pairs = { distances: new Array(8).fill(1), same };
    const s = sweep(pairs);
    expect(s.thresholds.length).toBe(1);
    expect(auc(s)).toBe(0.5);
    expect(equalErrorRate(s)).toBe(0.5);
    // Accepting all and rejecting all are equally good: the smallest threshold wins.
    expect(bestThreshold(s)).toEqual({ threshold: REJECT_ALL, accuracy: 0.5 });
    expect(atFalseAcceptRate(s, 0.1)).toEqual({ threshold: REJECT_ALL, far: 0, tar: 0 });
  });

  it('inverted scores: same people are further apart', () => {
    const pairs = { distances: [1.1, 1.2, 0.1, 0.2, 1.3, 1.4, 0.3, 0.4], same };
    const s = sweep(pairs);
    expect(auc(s)).toBe(0);
    expect(equalErrorRate(s)).toBe(1);
    expect(bestThreshold(s).accuracy).toBe(0.5);
  });

  it('ties across kinds are accepted together', () => {
    const pairs = { distances: [0.5, 1, 1, 2], same: [true, true, false, false] };
    const s = sweep(pairs);
    expect(bestThreshold(s)).toEqual({ threshold: 0.5, accuracy: 0.75 });
    expect(auc(s)).toBe((1 + 1 + 0.5 + 1) / 4);
    expect(equalErrorRate(s)).toBeCloseTo(1 / 4, 12);
    expect(atFalseAcceptRate(s, 0.5)).toEqual({ threshold: 1, far: 0.5, tar: 1 });
    expect(atFalseAcceptRate(s, 0.49)).toEqual({ threshold: 0.5, far: 0, tar: 0.5 });
  });

  it('Wilson’s interval: its ends p solve (right/n − p)² = z²·p·(1 − p)/n', () => {
    for (const [right, n] of [
      [5963, 6000],
      [1, 7],
      [300, 600],
    ]) {
      for (const p of wilsonInterval(right, n, 1.96)) {
        expect((right / n - p) ** 2).toBeCloseTo((1.96 ** 2 * p * (1 - p)) / n, 12);
      }
    }
    expect(wilsonInterval(5963, 6000).map((p) => p.toFixed(4))).toEqual(['0.9915', '0.9955']);
    expect(wilsonInterval(10, 10)[1]).toBe(1);
    expect(wilsonInterval(0, 10)[0]).toBe(0);
  });

  it('squared distance of unit vectors is 2 − 2 cos', () => {
    expect(squaredDistance([1, 0], [0.6, 0.8])).toBeCloseTo(2 - 2 * 0.6, 12);
    expect(() => squaredDistance([1, 0], [1])).toThrow(/2 and 1/);
  });
});

describe('against plain definitions', () => {
  for (const [seed, n, grid] of [
    [1, 60, 4],
    [2, 97, 16],
    [3, 120, 1000],
    [4, 41, 2],
  ]) {
    it(`${n} pairs on a grid of 1/${grid}`, () => {
      const pairs = randomPairs(seed, n, grid);
      const s = sweep(pairs);
      const chosen = everyPair(pairs);
      expect(auc(s)).toBeCloseTo(bruteAuc(pairs), 12);
      const best = bruteBest(pairs, chosen);
      expect(bestThreshold(s)).toEqual({ threshold: best.threshold, accuracy: best.right / n });
      for (const wished of [0, 0.01, 0.05, 0.3, 1]) {
        const t = bruteFar(pairs, chosen, wished);
        const { tar, far } = rates(pairs, t, chosen);
        expect(atFalseAcceptRate(s, wished)).toEqual({ threshold: t, tar, far });
      }
      const eer = equalErrorRate(s);
      const points = candidates(pairs, chosen).map((t) => rates(pairs, t, chosen));
      const after = points.findIndex((p) => p.far >= 1 - p.tar);
      // The point where the line between the two neighbours meets FAR = 1 − TAR, by bisection.
      let [low, high] = [0, 1];
      for (let k = 0; k < 60; k++) {
        const mid = (low + high) / 2;
        const mix = (key: 'far' | 'tar') => points[after - 1][key] * (1 - mid) + points[after][key] * mid;
        if (mix('far') + mix('tar') >= 1) high = mid;
        else low = mid;
      }
      expect(eer).toBeCloseTo(points[after - 1].far * (1 - high) + points[after].far * high, 10);

      const sizes = contiguousFolds(n, 7);
      const result = evaluate(pairs, sizes, [0.1]);
      let start = 0;
      const tars: number[] = [];
      for (const [k, size] of sizes.entries()) {
        const [inside, outside] = [true, false].map((is) =>
          chosen.filter((i) => (i >= start && i < start + size) === is),
        );
        const { threshold } = bruteBest(pairs, outside);
        expect(result.folds[k]).toEqual({
          threshold,
          accuracy: rates(pairs, threshold, inside).right / size,
          pairs: size,
        });
        tars.push(rates(pairs, bruteFar(pairs, outside, 0.1), inside).tar);
        start += size;
      }
      expect(result.tarAtFar[0].tar).toBeCloseTo(tars.reduce((a, b) => a + b) / tars.length, 12);
    });
  }

  it('takes 200,000 pairs', () => {
    const pairs = randomPairs(5, 200_000, 1e6);
    const result = evaluate(pairs, contiguousFolds(200_000));
    expect(result.folds.length).toBe(10);
    expect(result.accuracy.mean).toBeGreaterThan(0.5);
  });
});

describe('what cannot be evaluated says why', () => {
  it.each([
    [{ distances: [1, 2], same: [true] }, [1, 1], /2 distances but 1 labels/],
    [{ distances: [1, Number.NaN], same: [true, false] }, [1, 1], /Pair 2 has distance NaN/],
    [{ distances: [1, 2], same: [true, false] }, [2], /at least two folds/],
    [{ distances: [1, 2], same: [true, false] }, [1, 2], /hold 3 pairs, the list has 2/],
    [{ distances: [1, 2], same: [true, false] }, [2, 0], /do not fill/],
  ])('%j', (pairs, folds, message) => {
    expect(() => evaluate(pairs as ScoredPairs, folds)).toThrow(message);
  });

  it('a rate below one pair of different people is not measurable', () => {
    const distances = Array.from({ length: 200 }, (_, i) => i / 100);
    const result = evaluate({ distances, same: distances.map((_, i) => i % 2 === 0) }, [100, 100]);
    expect(result.tarAtFar.map((t) => [t.wished, t.tar === null])).toEqual([
      [0.01, false],
      [0.001, true],
    ]);
    expect(JSON.parse(JSON.stringify(result.tarAtFar[1]))).toEqual({
      wished: 0.001,
      tar: null,
      std: null,
      far: null,
      pooled: null,
    });
    const row = numbersOf(result).find(([name]) => name === 'TAR at FAR 0.1 %');
    expect(row?.slice(1)).toEqual(['–', 'not measurable with 100 pairs of different people']);
  });

  it('pairs of one kind have an accuracy but no ROC', () => {
    const result = evaluate({ distances: [1, 2, 3, 4], same: [true, true, true, true] }, [2, 2]);
    expect(result.auc).toBeNaN();
    expect(result.tarAtFar).toEqual([]);
  });
});
