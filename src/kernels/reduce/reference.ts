/** Σ over rows of x [rows, C], in f64 → [C]. */
export function channelSumReference(x: ArrayLike<number>, channels: number): Float64Array {
  const y = new Float64Array(channels);
  for (let i = 0; i < x.length; i++) y[i % channels] += x[i];
  return y;
}
