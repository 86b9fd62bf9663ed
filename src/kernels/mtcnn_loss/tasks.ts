/** What a sample teaches, as bits of one word: a negative is CLASSIFY, a positive CLASSIFY | FACE | BOX, a part face BOX. */
export const TASK = { classify: 1, face: 2, box: 4, points: 8 } as const;

/** Weights of the three losses and the share of the hardest class losses that count. */
export interface MtcnnLossOptions {
  classWeight: number;
  boxWeight: number;
  pointsWeight: number;
  /** From how far off on (fractions of the window) a coordinate of a point counts in proportion, not squared. */
  pointsBeta: number;
  /** In (0, 1]; 0.7 in the paper. */
  keep: number;
}
