/** L, its rows and du of the distillation loss; u [n, d], t [n, t], a row of zeros in t takes no part. */
export function distillReference(
  u: ArrayLike<number>,
  t: ArrayLike<number>,
  rows: number,
  alpha: number,
  lambda: number,
): { loss: number; rows: Float64Array; du: Float64Array } {
  const [d, e] = [u.length / rows, t.length / rows];
  const dot = (a: ArrayLike<number>, width: number, i: number, j: number) => {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += a[i * width + k] * a[j * width + k];
    return sum;
  };
  const taught = Array.from({ length: rows }, (_, i) => dot(t, e, i, i) > 0);
  const n = Math.max(1, taught.filter(Boolean).length);
  const out = new Float64Array(rows * 3);
  const du = new Float64Array(rows * d);
  let loss = 0;
  for (let i = 0; i < rows; i++) {
    if (!taught[i]) continue;
    let along = 0;
    for (let k = 0; k < Math.min(d, e); k++) along += u[i * d + k] * t[i * e + k];
    let square = 0;
    for (let j = 0; j < rows; j++) {
      if (!taught[j]) continue;
      const r = dot(u, d, i, j) - dot(t, e, i, j);
      square += r * r;
      for (let k = 0; k < d; k++) du[i * d + k] += ((4 * lambda) / n ** 2) * r * u[j * d + k];
    }
    for (let k = 0; k < Math.min(d, e); k++) du[i * d + k] -= (alpha / n) * t[i * e + k];
    out.set([1 - along, square, 1], i * 3);
    loss += (alpha / n) * (1 - along) + (lambda / n ** 2) * square;
  }
  return { loss, rows: out, du };
}
