import type { PoolWindow } from './window.js';

/** Pooling by definition over [N, H, W, C]; `kind` max or average (padding counts, what hangs over it does not). */
export function poolReference(
  x: ArrayLike<number>,
  [n, h, w, c]: readonly number[],
  [, oh, ow]: readonly number[],
  p: PoolWindow,
  kind: 'max' | 'average',
): Float64Array {
  const y = new Float64Array(n * oh * ow * c);
  for (let i = 0; i < y.length; i++) {
    const [k, q, r, b] = [
      i % c,
      Math.floor(i / c) % ow,
      Math.floor(i / c / ow) % oh,
      Math.floor(i / c / ow / oh),
    ];
    const [top, left] = [r * p.stride - p.padding, q * p.stride - p.padding];
    let most = Number.NEGATIVE_INFINITY;
    let sum = 0;
    let count = 0;
    for (let yy = top; yy < Math.min(top + p.kernel, h + p.padding); yy++) {
      for (let xx = left; xx < Math.min(left + p.kernel, w + p.padding); xx++) {
        count++;
        if (yy < 0 || xx < 0 || yy >= h || xx >= w) continue;
        const v = x[((b * h + yy) * w + xx) * c + k];
        most = Math.max(most, v);
        sum += v;
      }
    }
    y[i] = kind === 'max' ? most : sum / count;
  }
  return y;
}

export function globalAvgPoolReference(x: ArrayLike<number>, [n, h, w, c]: readonly number[]): Float64Array {
  const y = new Float64Array(n * c);
  for (let i = 0; i < x.length; i++) y[Math.floor(i / (h * w * c)) * c + (i % c)] += x[i] / (h * w);
  return y;
}

/** Of Σ dy·pool(x): each window hands its dy to its first maximum, or to all its places in equal shares. */
export function poolBackwardReference(
  x: ArrayLike<number>,
  [n, h, w, c]: readonly number[],
  dy: ArrayLike<number>,
  [, oh, ow]: readonly number[],
  p: PoolWindow,
  kind: 'max' | 'average',
): Float64Array {
  const dx = new Float64Array(n * h * w * c);
  for (let i = 0; i < n * oh * ow * c; i++) {
    const k = i % c;
    const b = Math.floor(i / c / ow / oh);
    const top = (Math.floor(i / c / ow) % oh) * p.stride - p.padding;
    const left = (Math.floor(i / c) % ow) * p.stride - p.padding;
    const [bottom, right] = [
      Math.min(top + p.kernel, h + p.padding),
      Math.min(left + p.kernel, w + p.padding),
    ];
    let most = -1;
    for (let yy = Math.max(top, 0); yy < Math.min(bottom, h); yy++) {
      for (let xx = Math.max(left, 0); xx < Math.min(right, w); xx++) {
        const at = ((b * h + yy) * w + xx) * c + k;
        if (kind === 'average') dx[at] += dy[i] / ((bottom - top) * (right - left));
        else if (most < 0 || x[at] > x[most]) most = at;
      }
    }
    if (most >= 0) dx[most] += dy[i];
  }
  return dx;
}
