import { type MtcnnLossOptions, TASK } from './tasks.js';

export interface MtcnnLossReference {
  loss: number;
  /** Gradients of the loss with respect to logits [N, 2], boxes [N, 4], points [N, 10]. */
  logits: Float64Array;
  box: Float64Array;
  points: Float64Array;
  rows: Float64Array;
  shares: Float64Array;
}

/** MTCNN's loss and its gradients in plain f64. */
export function mtcnnLossReference(
  logits: ArrayLike<number>,
  box: ArrayLike<number>,
  points: ArrayLike<number>,
  tasks: ArrayLike<number>,
  boxTarget: ArrayLike<number>,
  pointsTarget: ArrayLike<number>,
  o: MtcnnLossOptions,
): MtcnnLossReference {
  const n = tasks.length;
  const has = (i: number, bit: number) => (tasks[i] & bit) !== 0;
  const squared = (x: ArrayLike<number>, t: ArrayLike<number>, i: number, c: number) =>
    Array.from({ length: c }, (_, k) => (x[c * i + k] - t[c * i + k]) ** 2).reduce((a, b) => a + b, 0);
  const huber = (i: number) =>
    Array.from({ length: 10 }, (_, k) => Math.abs(points[10 * i + k] - pointsTarget[10 * i + k]))
      .map((v) => (v < o.pointsBeta ? v * v : o.pointsBeta * (2 * v - o.pointsBeta)))
      .reduce((a, b) => a + b, 0);
  const d = Array.from(
    { length: n },
    (_, i) => (logits[2 * i] - logits[2 * i + 1]) * (has(i, TASK.face) ? 1 : -1),
  );
  const rows = new Float64Array(4 * n);
  const shares = new Float64Array(4 * n);
  for (let i = 0; i < n; i++) {
    if (has(i, TASK.classify)) rows.set([Math.log1p(Math.exp(-Math.abs(d[i]))) + Math.max(0, d[i])], 4 * i);
    if (has(i, TASK.box)) rows[4 * i + 1] = squared(box, boxTarget, i, 4);
    if (has(i, TASK.points) && points.length > 0) rows[4 * i + 2] = huber(i);
    if (has(i, TASK.classify)) rows[4 * i + 3] = d[i] < 0 ? 1 : 0;
  }
  const all = Array.from({ length: n }, (_, i) => i);
  const classified = all
    .filter((i) => has(i, TASK.classify))
    .sort((a, b) => rows[4 * b] - rows[4 * a] || a - b);
  const hardest = classified.slice(0, Math.ceil(o.keep * classified.length - 1e-3));
  const share = (indices: readonly number[], k: number, weight: number) => {
    for (const i of indices) shares[4 * i + k] = weight / indices.length;
  };
  share(hardest, 0, o.classWeight);
  share(
    all.filter((i) => has(i, TASK.box)),
    1,
    o.boxWeight,
  );
  share(
    all.filter((i) => has(i, TASK.points)),
    2,
    points.length > 0 ? o.pointsWeight : 0,
  );
  const gradient = (x: ArrayLike<number>, t: ArrayLike<number>, c: number, k: number, most = Infinity) =>
    Float64Array.from(
      x,
      (v, i) => 2 * shares[4 * Math.floor(i / c) + k] * Math.max(-most, Math.min(most, v - t[i])),
    );
  return {
    loss: rows.reduce((sum, v, i) => sum + v * shares[i], 0),
    logits: Float64Array.from(logits, (_, i) => {
      const row = i >> 1;
      const face = 1 / (1 + Math.exp(logits[2 * row] - logits[2 * row + 1]));
      const off = face - (has(row, TASK.face) ? 1 : 0);
      return shares[4 * row] * (i & 1 ? off : -off);
    }),
    box: gradient(box, boxTarget, 4, 1),
    points: gradient(points, pointsTarget, 10, 2, o.pointsBeta),
    rows,
    shares,
  };
}
