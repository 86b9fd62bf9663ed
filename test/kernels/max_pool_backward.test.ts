import { describe, it } from 'vitest';
import { poolSize } from '../../src/graph/shapes.js';
import { maxPoolBackward } from '../../src/kernels/pool/backward.js';
import { checkOp, noise, sharedGpu } from '../check_op.js';

/** dy goes to the first place, rows first, that holds its window's maximum. */
function reference(
  x: Float32Array,
  [n, h, w, c]: readonly number[],
  dy: Float32Array,
  [, oh, ow]: readonly number[],
  p: { kernel: number; stride: number; padding: number },
): Float64Array {
  const dx = new Float64Array(x.length);
  for (let i = 0; i < n * oh * ow * c; i++) {
    const [k, q, r, b] = [
      i % c,
      Math.floor(i / c) % ow,
      Math.floor(i / c / ow) % oh,
      Math.floor(i / c / ow / oh),
    ];
    let best = -1;
    for (let t = 0; t < p.kernel * p.kernel; t++) {
      const yy = r * p.stride - p.padding + Math.floor(t / p.kernel);
      const xx = q * p.stride - p.padding + (t % p.kernel);
      if (yy < 0 || xx < 0 || yy >= h || xx >= w) continue;
      const at = ((b * h + yy) * w + xx) * c + k;
      if (best < 0 || x[at] > x[best]) best = at;
    }
    dx[best] += dy[i];
  }
  return dx;
}

describe('max pooling backward', () => {
  it.each([
    [[2, 9, 7, 5], 3, 2, 0, true],
    [[1, 10, 10, 10], 2, 2, 0, true],
    [[3, 11, 8, 3], 3, 2, 1, false],
    [[1, 5, 5, 1], 3, 1, 1, false],
    [[2, 6, 6, 8], 2, 3, 0, true],
  ] as const)('of %j, window %i, stride %i, padding %i', async (shape, kernel, stride, padding, ceil) => {
    const [n, h, w, c] = shape;
    const size = (s: number) => poolSize(s, kernel, stride, padding, ceil);
    const out = [n, size(h), size(w), c];
    // Few different values, so that many windows hold their maximum twice.
    const x = noise(n * h * w * c, 3).map((v) => Math.round(3 * v));
    const dy = noise(
      out.reduce((a, b) => a * b),
      4,
    );
    const expected = reference(x, shape, dy, out, { kernel, stride, padding });
    await checkOp(await sharedGpu(), (b) => {
      const dx = b.output(shape);
      const calls = maxPoolBackward(
        b.operand(x, shape),
        b.operand(dy, out),
        dx,
        { kernel, stride, padding },
        (s) => b.output(s),
      );
      const magnitude = new Float64Array(expected.length).fill(9);
      return { calls, outputs: [{ name: 'dx', operand: dx, shape, expected, magnitude }] };
    });
  });
});
