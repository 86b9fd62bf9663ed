type Values = ArrayLike<number>;

const map = (x: Values, f: (v: number, i: number) => number): Float64Array =>
  Float64Array.from({ length: x.length }, (_, i) => f(x[i], i));

/** Per channel of rows of `slope.length` values: max(x, 0) + slope·min(x, 0). */
export const preluReference = (x: Values, slope: Values) =>
  map(x, (v, i) => (v > 0 ? v : slope[i % slope.length] * v));
export const reluReference = (x: Values) => map(x, (v) => Math.max(v, 0));
export const addReference = (a: Values, b: Values) => map(a, (v, i) => v + b[i]);
export const mulReference = (a: Values, b: Values) => map(a, (v, i) => v * b[i]);
export const affineReference = (x: Values, scale: Values, shift: Values) =>
  map(x, (v, i) => v * scale[i % scale.length] + shift[i % shift.length]);

export function batchNormReference(
  x: Values,
  p: { weight: Values; bias: Values; mean: Values; variance: Values },
  eps: number,
): Float64Array {
  const c = p.mean.length;
  return map(
    x,
    (v, i) => ((v - p.mean[i % c]) / Math.sqrt(p.variance[i % c] + eps)) * p.weight[i % c] + p.bias[i % c],
  );
}

/** [N, H, W, C] mirrored left and right. */
export function flipReference(x: Values, [, , w, c]: readonly number[]): Float64Array {
  return map(x, (_, i) => {
    const column = Math.floor(i / c) % w;
    return x[i + (w - 1 - 2 * column) * c];
  });
}

/** Of Σ dy·prelu(x), by x and by the slopes. */
export function preluBackwardReference(x: Values, dy: Values, slope: Values) {
  const dSlope = new Float64Array(slope.length);
  for (let i = 0; i < x.length; i++) dSlope[i % slope.length] += dy[i] * Math.min(x[i], 0);
  return { dx: map(x, (v, i) => (v > 0 ? dy[i] : slope[i % slope.length] * dy[i])), dSlope };
}
