import type { Conv2dShape } from './types.js';

/** Visits every product x[i] · w[j] that a convolution adds to y[k], as (i, j, k); x and y NHWC, w OIHW. */
function eachTerm(s: Conv2dShape, visit: (x: number, w: number, y: number) => void): void {
  const depth = s.inChannels / s.groups;
  const perGroup = s.outChannels / s.groups;
  for (let n = 0; n < s.batch; n++) {
    for (let oy = 0; oy < s.outHeight; oy++) {
      for (let ox = 0; ox < s.outWidth; ox++) {
        for (let ky = 0; ky < s.kernelHeight; ky++) {
          for (let kx = 0; kx < s.kernelWidth; kx++) {
            const iy = oy * s.stride + ky * s.dilation - s.padding;
            const ix = ox * s.stride + kx * s.dilation - s.padding;
            if (iy < 0 || iy >= s.inHeight || ix < 0 || ix >= s.inWidth) continue;
            for (let o = 0; o < s.outChannels; o++) {
              const x =
                ((n * s.inHeight + iy) * s.inWidth + ix) * s.inChannels + Math.floor(o / perGroup) * depth;
              const y = ((n * s.outHeight + oy) * s.outWidth + ox) * s.outChannels + o;
              for (let c = 0; c < depth; c++)
                visit(x + c, ((o * depth + c) * s.kernelHeight + ky) * s.kernelWidth + kx, y);
            }
          }
        }
      }
    }
  }
}

/** dL/dx [N,H,W,I] from dy = dL/dy [N,H',W',O] and the weight OIHW, in f64. */
export function conv2dGradInputReference(
  s: Conv2dShape,
  dy: ArrayLike<number>,
  weight: ArrayLike<number>,
): Float64Array {
  const dx = new Float64Array(s.batch * s.inHeight * s.inWidth * s.inChannels);
  eachTerm(s, (i, j, k) => {
    dx[i] += weight[j] * dy[k];
  });
  return dx;
}

/** dL/dweight OIHW from x [N,H,W,I] and dy = dL/dy [N,H',W',O], in f64. */
export function conv2dGradWeightReference(
  s: Conv2dShape,
  x: ArrayLike<number>,
  dy: ArrayLike<number>,
): Float64Array {
  const dw = new Float64Array((s.outChannels * s.inChannels * s.kernelHeight * s.kernelWidth) / s.groups);
  eachTerm(s, (i, j, k) => {
    dw[j] += x[i] * dy[k];
  });
  return dw;
}
