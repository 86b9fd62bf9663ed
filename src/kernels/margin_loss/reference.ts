import type { Margin } from './margin.js';

/** φ and φ′ of the own class's cosine. */
export function marginReference(c: number, { m1, m2, m3, exact }: Margin): [phi: number, slope: number] {
  const sine = Math.sqrt(Math.max(1 - c * c, 1e-6));
  const angle = m1 * Math.acos(c) + m2;
  let [phi, slope] = [Math.cos(angle), (m1 * Math.sin(angle)) / sine];
  if (angle > Math.PI) [phi, slope] = m1 === 1 ? [c - m2 * Math.sin(m2), 1] : [-2 - phi, -slope];
  return [phi - m3, exact ? slope : 1];
}

/** L, cross-entropy and hit of each row, du and dw of the margin softmax; u [n, d] unit rows, w [classes, d]. */
export function marginLossReference(
  u: ArrayLike<number>,
  w: ArrayLike<number>,
  labels: ArrayLike<number>,
  dimension: number,
  m: Margin,
) {
  const [n, classes] = [labels.length, w.length / dimension];
  const known = Math.max(1, Array.from(labels).filter((y) => y < classes).length);
  const norm = Float64Array.from({ length: classes }, (_, j) => {
    let square = 0;
    for (let k = 0; k < dimension; k++) square += w[j * dimension + k] ** 2;
    return Math.sqrt(square);
  });
  const cosine = new Float64Array(n * classes);
  for (let i = 0; i < n * classes; i++)
    for (let k = 0, j = i % classes; k < dimension; k++)
      cosine[i] += (u[Math.floor(i / classes) * dimension + k] * w[j * dimension + k]) / norm[j];
  const entropy = new Float64Array(n);
  const hits = new Float64Array(n);
  const p = new Float64Array(n * classes);
  for (let i = 0; i < n; i++) {
    if (labels[i] >= classes) continue;
    const row = cosine.subarray(i * classes, (i + 1) * classes);
    const v = row.map((c, j) => m.scale * (j === labels[i] ? marginReference(c, m)[0] : c));
    const most = Math.max(...v);
    const sum = v.reduce((s, x) => s + Math.exp(x - most), 0);
    entropy[i] = most + Math.log(sum) - v[labels[i]];
    hits[i] = Math.max(...row) === row[labels[i]] ? 1 : 0;
    p.set(
      v.map((x) => Math.exp(x - most) / sum),
      i * classes,
    );
  }
  const mean = entropy.reduce((a, b) => a + b) / known;
  const rest = 1 - Math.exp(-mean);
  const slope = m.gamma === 0 ? 1 : rest ** m.gamma + m.gamma * rest ** (m.gamma - 1) * (1 - rest) * mean;
  const du = new Float64Array(u.length);
  const dw = new Float64Array(w.length);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < classes && labels[i] < classes; j++) {
      const c = cosine[i * classes + j];
      const own = j === labels[i];
      const dc =
        ((p[i * classes + j] - (own ? 1 : 0)) * (own ? marginReference(c, m)[1] : 1) * m.scale * slope) /
        known;
      for (let k = 0; k < dimension; k++) {
        const unit = w[j * dimension + k] / norm[j];
        du[i * dimension + k] += dc * unit;
        dw[j * dimension + k] += (dc / norm[j]) * (u[i * dimension + k] - c * unit);
      }
    }
  }
  return { loss: m.gamma === 0 ? mean : rest ** m.gamma * mean, entropy, hits, du, dw };
}
