import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { poolSize } from '../../src/graph/shapes.js';
import {
  add,
  affine,
  batchNorm,
  copy,
  flip,
  mul,
  prelu,
  relu,
} from '../../src/kernels/elementwise/forward.js';
import * as elementwise from '../../src/kernels/elementwise/reference.js';
import { flatten } from '../../src/kernels/flatten/forward.js';
import { flattenReference } from '../../src/kernels/flatten/reference.js';
import { l2Normalize } from '../../src/kernels/l2norm/forward.js';
import { l2NormalizeReference } from '../../src/kernels/l2norm/reference.js';
import { avgPool, globalAvgPool, maxPool } from '../../src/kernels/pool/forward.js';
import { globalAvgPoolReference, poolReference } from '../../src/kernels/pool/reference.js';
import { softmax } from '../../src/kernels/softmax/forward.js';
import { softmaxReference } from '../../src/kernels/softmax/reference.js';
import { product } from '../../src/kernels/tensor.js';
import { checkOp, noise, roundedTo, sharedGpu } from '../check_op.js';

const SHAPES = [
  [1, 1, 1, 1],
  [1, 3, 5, 2],
  [3, 7, 1, 7],
  [2, 5, 13, 10],
  [1, 13, 13, 28],
  [1, 4, 4, 64],
  [5, 3],
  [1, 130],
  [7, 4],
];
const MAPS = SHAPES.filter((s) => s.length === 4);
const STORAGES: FloatType[] = ['f32', 'f16'];

const input = (shape: readonly number[], dtype: FloatType, seed = 1) =>
  roundedTo(dtype, noise(product(shape), seed));
const absolute = (x: ArrayLike<number>) => Float64Array.from(x, Math.abs);
const sums = (...parts: ArrayLike<number>[]) =>
  Float64Array.from(parts[0], (_, i) => parts.reduce((s, p) => s + Math.abs(p[i % p.length]), 0));

describe.each(STORAGES)('element-wise ops stored as %s', (dtype) => {
  it.each(SHAPES.map((s) => [s.join('×'), s] as const))('%s', async (_, shape) => {
    const gpu = await sharedGpu();
    const c = shape[shape.length - 1];
    const [a, b] = [input(shape, dtype, 1), input(shape, dtype, 2)];
    const [p, q, r] = [noise(c, 3), noise(c, 4), noise(c, 5)];
    const variance = noise(c, 6).map((v) => 0.2 + Math.abs(v));
    const cases: [string, Float64Array, Float64Array][] = [
      ['relu', elementwise.reluReference(a), absolute(a)],
      ['prelu', elementwise.preluReference(a, p), absolute(a)],
      ['add', elementwise.addReference(a, b), sums(a, b)],
      ['mul', elementwise.mulReference(a, b), absolute(elementwise.mulReference(a, b))],
      [
        'affine',
        elementwise.affineReference(a, p, q),
        sums(
          elementwise.affineReference(
            a,
            p,
            [...p].map(() => 0),
          ),
          q,
        ),
      ],
      [
        'batchNorm',
        elementwise.batchNormReference(a, { weight: p, bias: q, mean: r, variance }, 1e-5),
        a.map(() => 8),
      ],
      ['copy', Float64Array.from(a), absolute(a)],
    ].map(
      ([name, expected, magnitude]) => [name, expected, magnitude] as [string, Float64Array, Float64Array],
    );
    for (const [name, expected, magnitude] of cases) {
      await checkOp(gpu, (buffers) => {
        const x = buffers.operand(a, shape, dtype);
        const y = buffers.output(shape, dtype);
        const v = (data: Float32Array) => buffers.vector(data);
        const calls = {
          relu: () => relu(x, y),
          prelu: () => prelu(x, v(p), y),
          add: () => add(x, buffers.operand(b, shape, dtype), y),
          mul: () => mul(x, buffers.operand(b, shape, dtype), y),
          affine: () => affine(x, v(p), v(q), y),
          batchNorm: () =>
            batchNorm(
              x,
              { weight: v(p), bias: v(q), mean: v(r), variance: buffers.vector(variance) },
              1e-5,
              y,
            ),
          copy: () => copy(x, y),
        }[name]!();
        return { calls, outputs: [{ name, shape, dtype, expected, magnitude, operand: y }] };
      });
    }
  });

  it('converts between storages and mirrors maps', async () => {
    const gpu = await sharedGpu();
    for (const shape of MAPS) {
      const x = input(shape, dtype);
      const other = dtype === 'f32' ? 'f16' : 'f32';
      await checkOp(gpu, (buffers) => {
        const [from, converted, mirrored] = [
          buffers.operand(x, shape, dtype),
          buffers.output(shape, other),
          buffers.output(shape, dtype),
        ];
        return {
          calls: [...copy(from, converted), ...flip(from, mirrored)],
          outputs: [
            { name: 'copy', shape, dtype: other, expected: x, magnitude: absolute(x), operand: converted },
            {
              name: 'flip',
              shape,
              dtype,
              expected: elementwise.flipReference(x, shape),
              magnitude: absolute(x),
              steps: 0,
              operand: mirrored,
            },
          ],
        };
      });
    }
  });
});

describe.each(STORAGES)('row ops stored as %s', (dtype) => {
  it.each(SHAPES.map((s) => [s.join('×'), s] as const))(
    'softmax, normalise, flatten of %s',
    async (_, shape) => {
      const gpu = await sharedGpu();
      const c = shape[shape.length - 1];
      // Large values too: softmax must not overflow.
      const x = roundedTo(
        dtype,
        noise(product(shape)).map((v) => 30 * v),
      );
      await checkOp(gpu, (buffers) => {
        const from = buffers.operand(x, shape, dtype);
        const [s, u] = [buffers.output(shape, dtype), buffers.output(shape, dtype)];
        const expected = softmaxReference(x, c);
        return {
          calls: [...softmax(from, s), ...l2Normalize(from, 1e-12, u)],
          outputs: [
            // exp is correct to about two units in WGSL, more for large arguments: 60 is the largest difference here.
            {
              name: 'softmax',
              shape,
              dtype,
              expected,
              magnitude: expected.map((v) => Math.max(v, 1e-30)),
              steps: 160,
              operand: s,
            },
            {
              name: 'l2Normalize',
              shape,
              dtype,
              expected: l2NormalizeReference(x, c, 1e-12),
              magnitude: x.map(() => 1),
              steps: c + 8,
              operand: u,
            },
          ],
        };
      });
    },
  );

  it('divides by eps where a vector is shorter', async () => {
    const gpu = await sharedGpu();
    await checkOp(gpu, (buffers) => {
      const y = buffers.output([1, 3]);
      const x = Float32Array.of(0.01, 0, -0.02);
      const expected = l2NormalizeReference(x, 3, 0.5);
      return {
        calls: l2Normalize(buffers.operand(x, [1, 3]), 0.5, y),
        outputs: [{ name: 'y', shape: [1, 3], expected, magnitude: x.map(() => 1), operand: y }],
      };
    });
  });

  it.each(['chw', 'hwc', 'whc', 'cwh'] as const)('flatten %s', async (order) => {
    const gpu = await sharedGpu();
    for (const shape of MAPS) {
      const x = input(shape, dtype);
      const flat = [shape[0], product(shape.slice(1))];
      await checkOp(gpu, (buffers) => {
        const y = buffers.output(flat, dtype);
        const expected = flattenReference(x, shape, order);
        return {
          calls: flatten(buffers.operand(x, shape, dtype), order, y),
          outputs: [
            { name: order, shape: flat, dtype, expected, magnitude: absolute(x), steps: 0, operand: y },
          ],
        };
      });
    }
  });
});

describe.each(STORAGES)('pooling stored as %s', (dtype) => {
  const windows = [
    { kernel: 2, stride: 2, padding: 0, ceil: true },
    { kernel: 3, stride: 2, padding: 0, ceil: true },
    { kernel: 3, stride: 1, padding: 1, ceil: false },
    { kernel: 3, stride: 2, padding: 1, ceil: true },
    { kernel: 1, stride: 3, padding: 0, ceil: false },
  ];
  it.each(windows)('$kernel×$kernel, stride $stride, padding $padding, ceil $ceil', async (w) => {
    const gpu = await sharedGpu();
    let checked = 0;
    for (const shape of MAPS) {
      const [h, width] = [1, 2].map((k) => poolSize(shape[k], w.kernel, w.stride, w.padding, w.ceil));
      if (h < 1 || width < 1) continue;
      checked++;
      const out = [shape[0], h, width, shape[3]];
      const x = input(shape, dtype);
      const size = Float64Array.from({ length: product(out) }, () => 1);
      await checkOp(gpu, (buffers) => {
        const from = buffers.operand(x, shape, dtype);
        const [most, mean] = [buffers.output(out, dtype), buffers.output(out, dtype)];
        return {
          calls: [...maxPool(from, most, w), ...avgPool(from, mean, w)],
          outputs: [
            {
              name: 'max',
              shape: out,
              dtype,
              expected: poolReference(x, shape, out, w, 'max'),
              magnitude: size,
              steps: 0,
              operand: most,
            },
            {
              name: 'average',
              shape: out,
              dtype,
              expected: poolReference(x, shape, out, w, 'average'),
              magnitude: size,
              steps: 12,
              operand: mean,
            },
          ],
        };
      });
    }
    expect(checked).toBeGreaterThan(2);
  });

  it('global average', async () => {
    const gpu = await sharedGpu();
    for (const shape of MAPS) {
      const out = [shape[0], shape[3]];
      const x = input(shape, dtype);
      await checkOp(gpu, (buffers) => {
        const y = buffers.output(out, dtype);
        const expected = globalAvgPoolReference(x, shape);
        return {
          calls: globalAvgPool(buffers.operand(x, shape, dtype), y),
          outputs: [
            {
              name: 'mean',
              shape: out,
              dtype,
              expected,
              magnitude: expected.map(() => 1),
              steps: shape[1] * shape[2] + 4,
              operand: y,
            },
          ],
        };
      });
    }
  });
});

describe('references against an implementation that is not ours', () => {
  const shape: [number, number, number, number] = [2, 8, 10, 5];
  const x = noise(product(shape));
  const t = () => tf.tensor4d(x, shape);
  const close = (ours: Float64Array, theirs: tf.Tensor) => {
    const data = theirs.dataSync();
    expect(data.length).toBe(ours.length);
    for (let i = 0; i < data.length; i++) expect(Math.abs(data[i] - ours[i])).toBeLessThan(2e-6);
  };

  it('softmax, pooling, batch norm, PReLU', () => {
    close(softmaxReference(x, 5), tf.softmax(t()));
    const w = { kernel: 2, stride: 2, padding: 0 };
    close(poolReference(x, shape, [2, 4, 5, 5], w, 'max'), tf.maxPool(t(), 2, 2, 'valid'));
    close(poolReference(x, shape, [2, 4, 5, 5], w, 'average'), tf.avgPool(t(), 2, 2, 'valid'));
    close(globalAvgPoolReference(x, shape), tf.mean(t(), [1, 2]));
    const [mean, weight, bias] = [1, 2, 3].map((s) => noise(5, s));
    const variance = noise(5, 4).map((v) => Math.abs(v) + 0.3);
    close(
      elementwise.batchNormReference(x, { weight, bias, mean, variance }, 1e-3),
      tf.batchNorm4d(
        t(),
        tf.tensor1d(mean),
        tf.tensor1d(variance),
        tf.tensor1d(bias),
        tf.tensor1d(weight),
        1e-3,
      ),
    );
    close(elementwise.preluReference(x, weight), tf.prelu(t(), tf.tensor4d(weight, [1, 1, 1, 5])));
    close(elementwise.flipReference(x, shape), tf.reverse(t(), 2));
    close(flattenReference(x, shape, 'chw'), tf.reshape(tf.transpose(t(), [0, 3, 1, 2]), [2, -1]));
    close(flattenReference(x, shape, 'whc'), tf.reshape(tf.transpose(t(), [0, 2, 1, 3]), [2, -1]));
  });
});
