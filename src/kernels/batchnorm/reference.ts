type Values = ArrayLike<number>;

export interface BatchNormResult {
  y: Float64Array;
  mean: Float64Array;
  /** Biased, as the norm divides by. */
  variance: Float64Array;
}

/** Batch norm by batch statistics over rows of `weight.length` values, then max(z,0) + slope·min(z,0). */
export function batchNormTrainReference(
  x: Values,
  weight: Values,
  bias: Values,
  eps: number,
  slope?: Values,
): BatchNormResult {
  const c = weight.length;
  const rows = x.length / c;
  const mean = new Float64Array(c);
  const variance = new Float64Array(c);
  for (let i = 0; i < x.length; i++) mean[i % c] += x[i] / rows;
  for (let i = 0; i < x.length; i++) variance[i % c] += (x[i] - mean[i % c]) ** 2 / rows;
  const y = Float64Array.from({ length: x.length }, (_, i) => {
    const k = i % c;
    const z = ((x[i] - mean[k]) / Math.sqrt(variance[k] + eps)) * weight[k] + bias[k];
    return z > 0 || !slope ? z : z * slope[k];
  });
  return { y, mean, variance };
}

/** Gradients of Σ dy·y with respect to all that y depends on. */
export function batchNormBackwardReference(
  x: Values,
  dy: Values,
  weight: Values,
  bias: Values,
  eps: number,
  slope?: Values,
) {
  const c = weight.length;
  const rows = x.length / c;
  const { mean, variance } = batchNormTrainReference(x, weight, bias, eps);
  const [dWeight, dBias, dSlope] = [new Float64Array(c), new Float64Array(c), new Float64Array(c)];
  const normal = (i: number) => (x[i] - mean[i % c]) / Math.sqrt(variance[i % c] + eps);
  const dz = Float64Array.from({ length: x.length }, (_, i) => {
    const k = i % c;
    const z = normal(i) * weight[k] + bias[k];
    if (z <= 0) dSlope[k] += dy[i] * z;
    return z > 0 || !slope ? dy[i] : dy[i] * slope[k];
  });
  for (let i = 0; i < x.length; i++) {
    dBias[i % c] += dz[i];
    dWeight[i % c] += dz[i] * normal(i);
  }
  const dx = dz.map(
    (d, i) =>
      (weight[i % c] / Math.sqrt(variance[i % c] + eps)) *
      (d - dBias[i % c] / rows - (normal(i) * dWeight[i % c]) / rows),
  );
  return { dx, dWeight, dBias, dSlope };
}
