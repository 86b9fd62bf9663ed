import { type FlattenOrder, flatIndex } from '../packing.js';

/** [N, H, W, C] → [N, H·W·C] in the order given. */
export function flattenReference(
  x: ArrayLike<number>,
  [n, h, w, c]: readonly number[],
  order: FlattenOrder,
): Float64Array {
  const y = new Float64Array(x.length);
  for (let b = 0; b < n; b++)
    for (let r = 0; r < h; r++)
      for (let q = 0; q < w; q++)
        for (let k = 0; k < c; k++)
          y[b * h * w * c + flatIndex(order, [h, w, c], r, q, k)] = x[((b * h + r) * w + q) * c + k];
  return y;
}
