/** Each row of `channels` values over the larger of its length and eps. */
export function l2NormalizeReference(x: ArrayLike<number>, channels: number, eps: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += channels) {
    let square = 0;
    for (let c = 0; c < channels; c++) square += x[r + c] ** 2;
    for (let c = 0; c < channels; c++) y[r + c] = x[r + c] / Math.max(Math.sqrt(square), eps);
  }
  return y;
}
