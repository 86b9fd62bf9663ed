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

/** Of Σ dy·y with y each row over the larger of its length and eps. */
export function l2NormalizeBackwardReference(
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
  channels: number,
  eps: number,
): Float64Array {
  const dx = new Float64Array(x.length);
  for (let r = 0; r < x.length; r += channels) {
    let [square, along] = [0, 0];
    for (let c = 0; c < channels; c++) {
      square += x[r + c] ** 2;
      along += x[r + c] * dy[r + c];
    }
    const length = Math.sqrt(square);
    for (let c = 0; c < channels; c++)
      dx[r + c] = length > eps ? dy[r + c] / length - (x[r + c] * along) / length ** 3 : dy[r + c] / eps;
  }
  return dx;
}
