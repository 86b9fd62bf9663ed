import type { Conv2dShape } from './types.js';

/** Convolution by definition in f64. x [N,H,W,I], weight OIHW, both unpadded → [N,H',W',O]. */
export function conv2dReference(
  s: Conv2dShape,
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  bias?: ArrayLike<number>,
): Float64Array {
  const { groups, stride, padding, dilation } = s;
  const depth = s.inChannels / groups;
  const perGroup = s.outChannels / groups;
  const y = new Float64Array(s.batch * s.outHeight * s.outWidth * s.outChannels);
  let at = 0;
  for (let n = 0; n < s.batch; n++) {
    for (let oy = 0; oy < s.outHeight; oy++) {
      for (let ox = 0; ox < s.outWidth; ox++) {
        for (let o = 0; o < s.outChannels; o++) {
          let sum = bias?.[o] ?? 0;
          const first = Math.floor(o / perGroup) * depth;
          for (let ky = 0; ky < s.kernelHeight; ky++) {
            const iy = oy * stride + ky * dilation - padding;
            if (iy < 0 || iy >= s.inHeight) continue;
            for (let kx = 0; kx < s.kernelWidth; kx++) {
              const ix = ox * stride + kx * dilation - padding;
              if (ix < 0 || ix >= s.inWidth) continue;
              const pixel = ((n * s.inHeight + iy) * s.inWidth + ix) * s.inChannels + first;
              for (let c = 0; c < depth; c++) {
                sum += x[pixel + c] * weight[((o * depth + c) * s.kernelHeight + ky) * s.kernelWidth + kx];
              }
            }
          }
          y[at++] = sum;
        }
      }
    }
  }
  return y;
}
