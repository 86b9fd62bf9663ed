/** Square RGB pictures of floats, side × side × 3, made larger, smaller and softer. */

/** Bilinear where it grows, the mean of the covered area where it shrinks. */
export function resize(pixels: Float32Array, from: number, to: number): Float32Array {
  const weights = Array.from({ length: to }, (_, i) => taps(i, from, to));
  const rows = new Float32Array(to * from * 3);
  weights.forEach((list, y) => {
    for (const [source, weight] of list)
      for (let i = 0; i < from * 3; i++) rows[y * from * 3 + i] += pixels[source * from * 3 + i] * weight;
  });
  const out = new Float32Array(to * to * 3);
  weights.forEach((list, x) => {
    for (const [source, weight] of list)
      for (let y = 0; y < to; y++)
        for (let k = 0; k < 3; k++) out[(y * to + x) * 3 + k] += rows[(y * from + source) * 3 + k] * weight;
  });
  return out;
}

/** Source positions and weights of output position i. */
function taps(i: number, from: number, to: number): [source: number, weight: number][] {
  const scale = from / to;
  if (scale <= 1) {
    const at = Math.min(from - 1, Math.max(0, (i + 0.5) * scale - 0.5));
    const left = Math.floor(at);
    const right = Math.min(from - 1, left + 1);
    return [
      [left, 1 - (at - left)],
      [right, at - left],
    ];
  }
  const [start, end] = [i * scale, (i + 1) * scale];
  const list: [number, number][] = [];
  for (let s = Math.floor(start); s < Math.min(from, Math.ceil(end - 1e-9)); s++)
    list.push([s, (Math.min(s + 1, end) - Math.max(s, start)) / scale]);
  return list;
}

/** Gaussian blur, borders repeated. */
export function blur(pixels: Float32Array, side: number, sigma: number): Float32Array {
  const radius = Math.max(1, Math.ceil(2 * sigma));
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, i) =>
    Math.exp(-((i - radius) ** 2) / (2 * sigma * sigma)),
  );
  const total = kernel.reduce((a, b) => a + b);
  const pass = (from: Float32Array, along: number, across: number): Float32Array => {
    const out = new Float32Array(from.length);
    for (let line = 0; line < side; line++) {
      for (let i = 0; i < side; i++) {
        const at = line * across + i * along;
        for (let t = -radius; t <= radius; t++) {
          const source = line * across + Math.min(side - 1, Math.max(0, i + t)) * along;
          const weight = kernel[t + radius] / total;
          for (let k = 0; k < 3; k++) out[at + k] += from[source + k] * weight;
        }
      }
    }
    return out;
  };
  return pass(pass(pixels, 3, side * 3), side * 3, 3);
}
