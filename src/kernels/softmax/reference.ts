/** Softmax of each row of `channels` values. */
export function softmaxReference(x: ArrayLike<number>, channels: number): Float64Array {
  const y = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += channels) {
    let most = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < channels; c++) most = Math.max(most, x[r + c]);
    let total = 0;
    for (let c = 0; c < channels; c++) total += Math.exp(x[r + c] - most);
    for (let c = 0; c < channels; c++) y[r + c] = Math.exp(x[r + c] - most) / total;
  }
  return y;
}
