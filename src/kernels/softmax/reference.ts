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

/** Of Σ dy·softmax(x), from y = softmax(x). */
export function softmaxBackwardReference(
  y: ArrayLike<number>,
  dy: ArrayLike<number>,
  channels: number,
): Float64Array {
  const dx = new Float64Array(y.length);
  for (let r = 0; r < y.length; r += channels) {
    let sum = 0;
    for (let c = 0; c < channels; c++) sum += dy[r + c] * y[r + c];
    for (let c = 0; c < channels; c++) dx[r + c] = y[r + c] * (dy[r + c] - sum);
  }
  return dx;
}
