import { describe, expect, it } from 'vitest';
import type { BufferRange } from '../../src/gpu/gpu.js';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { Program } from '../../src/gpu/program.js';
import { poolSize } from '../../src/graph/shapes.js';
import { batchNormBackward } from '../../src/kernels/batchnorm/backward.js';
import {
  batchNormApply,
  batchNormStatistics,
  runningStatistics,
} from '../../src/kernels/batchnorm/forward.js';
import {
  batchNormBackwardReference,
  batchNormTrainReference,
} from '../../src/kernels/batchnorm/reference.js';
import { dropout, dropoutKeeps } from '../../src/kernels/dropout/dropout.js';
import { activationBackward } from '../../src/kernels/elementwise/backward.js';
import { prelu } from '../../src/kernels/elementwise/forward.js';
import {
  batchNormReference,
  preluBackwardReference,
  preluReference,
} from '../../src/kernels/elementwise/reference.js';
import { flattenBackward } from '../../src/kernels/flatten/backward.js';
import { flattenReference } from '../../src/kernels/flatten/reference.js';
import { l2NormalizeBackward } from '../../src/kernels/l2norm/backward.js';
import { l2NormalizeBackwardReference, l2NormalizeReference } from '../../src/kernels/l2norm/reference.js';
import { crossEntropy, crossEntropyBackward } from '../../src/kernels/loss/cross_entropy.js';
import { crossEntropyReference, smoothL1Reference } from '../../src/kernels/loss/reference.js';
import { smoothL1, smoothL1Backward } from '../../src/kernels/loss/smooth_l1.js';
import { castWeight } from '../../src/kernels/optimizer/cast.js';
import { decideStep } from '../../src/kernels/optimizer/norm.js';
import { STEP_WORDS, WORD } from '../../src/kernels/optimizer/step_words.js';
import { type FlattenOrder, pack, packedData } from '../../src/kernels/packing.js';
import { avgPoolBackward, globalAvgPoolBackward } from '../../src/kernels/pool/backward.js';
import { maxPoolBackward, maxPoolTraining, placesShape } from '../../src/kernels/pool/max_training.js';
import {
  globalAvgPoolReference,
  poolBackwardReference,
  poolReference,
} from '../../src/kernels/pool/reference.js';
import { softmaxBackward } from '../../src/kernels/softmax/backward.js';
import { softmaxBackwardReference, softmaxReference } from '../../src/kernels/softmax/reference.js';
import { product } from '../../src/kernels/tensor.js';
import { Buffers, card, checkOp, noise, readOperand, roundedTo, sharedGpu } from '../check_op.js';

type Values = ArrayLike<number>;

const STORAGES: FloatType[] = ['f32', 'f16'];
const scratch = (buffers: Buffers) => (shape: readonly number[], dtype: FloatType) =>
  buffers.output(shape, dtype);
const all = (length: number, value: number) => new Float64Array(length).fill(value);

/** Gradient of Σ dy·f(x) by central differences in f64. */
function differences(f: (x: Float64Array) => Values, x: Values, dy: Values, h = 1e-5): Float64Array {
  const at = Float64Array.from(x);
  const along = () => Array.from(f(at)).reduce((s, v, i) => s + v * dy[i], 0);
  return Float64Array.from(at, (v, i) => {
    at[i] = v + h;
    const up = along();
    at[i] = v - h;
    const down = along();
    at[i] = v;
    return (up - down) / (2 * h);
  });
}

const close = (a: Values, b: Values, tolerance = 1e-7) => {
  expect(a.length).toBe(b.length);
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(tolerance);
};

describe('references against central differences', () => {
  const shape = [3, 2, 5];
  const [x, dy] = [noise(30, 1), noise(30, 2)];
  const [w, b, s] = [noise(5, 3), noise(5, 4), noise(5, 5)];

  it('batch norm with PReLU, by everything it depends on', () => {
    const r = batchNormBackwardReference(x, dy, w, b, 1e-3, s);
    close(
      r.dx,
      differences((v) => batchNormTrainReference(v, w, b, 1e-3, s).y, x, dy),
      1e-6,
    );
    close(
      r.dWeight,
      differences((v) => batchNormTrainReference(x, v, b, 1e-3, s).y, w, dy),
      1e-6,
    );
    close(
      r.dBias,
      differences((v) => batchNormTrainReference(x, w, v, 1e-3, s).y, b, dy),
      1e-6,
    );
    close(
      r.dSlope,
      differences((v) => batchNormTrainReference(x, w, b, 1e-3, v).y, s, dy),
      1e-6,
    );
  });

  it('PReLU, softmax, L2 normalisation, pooling, losses', () => {
    const prelu = preluBackwardReference(x, dy, s);
    close(
      prelu.dx,
      differences((v) => preluReference(v, s), x, dy),
    );
    close(
      prelu.dSlope,
      differences((v) => preluReference(x, v), s, dy),
    );
    close(
      softmaxBackwardReference(softmaxReference(x, 5), dy, 5),
      differences((v) => softmaxReference(v, 5), x, dy),
    );
    for (const eps of [1e-12, 3])
      close(
        l2NormalizeBackwardReference(x, dy, 5, eps),
        differences((v) => l2NormalizeReference(v, 5, eps), x, dy),
      );
    for (const kind of ['max', 'average'] as const) {
      const window = { kernel: 3, stride: 2, padding: 1 };
      const map = [1, 5, 3, 2];
      const out = [1, 3, 2, 2];
      close(
        poolBackwardReference(x, map, dy, out, window, kind),
        differences((v) => poolReference(v, map, out, window, kind), x, dy),
      );
    }
    const labels = [4, 0, 9, 2, 2, 1];
    close(
      crossEntropyReference(x, labels, 5).dx,
      differences((v) => [crossEntropyReference(v, labels, 5).loss], x, [1]),
    );
    close(
      smoothL1Reference(x, dy, 0.4).dx,
      differences((v) => [smoothL1Reference(v, dy, 0.4).loss], x, [1]),
    );
    expect(shape.length).toBe(3);
  });
});

const SHAPES = [
  [2, 1, 1, 1],
  [1, 3, 5, 2],
  [3, 7, 1, 7],
  [2, 5, 13, 10],
  [2, 13, 13, 28],
  [3, 9, 9, 64],
  // Several quads an invocation, and several of those a row.
  [2, 5, 3, 256],
  [5, 3],
  [4, 130],
  [900, 5],
];

// For this device, and as a card adds up its sums, which many invocations share there.
describe.each(
  STORAGES.flatMap((dtype) => (['this device', 'a card'] as const).map((who) => [dtype, who] as const)),
)('batch norm in training, maps stored as %s, for %s', (dtype, who) => {
  it.each(SHAPES.map((s) => [s.join('×'), s] as const))('%s', async (_, shape) => {
    const gpu = await sharedGpu();
    const traits = who === 'a card' ? card(gpu.traits) : gpu.traits;
    const c = shape[shape.length - 1];
    const rows = product(shape) / c;
    const eps = 1e-3;
    // A mean far from zero: the sums of squares must not lose the deviation.
    const offset = noise(c, 9);
    const x = roundedTo(
      dtype,
      noise(product(shape), 1).map((v, i) => v + 4 * offset[i % c]),
    );
    const dy = roundedTo(dtype, noise(product(shape), 2));
    const other = roundedTo(dtype, noise(product(shape), 8));
    const [w, b, s] = [noise(c, 3), noise(c, 4), noise(c, 5)];
    const forward = batchNormTrainReference(x, w, b, eps);
    const inverse = forward.variance.map((v) => 1 / Math.sqrt(v + eps));
    const scale = inverse.map((v, k) => v * w[k]);
    const rowsOf4 = (...lists: Values[]) => Float64Array.from(lists.flatMap((l) => Array.from(l)));
    const statistics = rowsOf4(
      scale,
      forward.mean.map((m, k) => b[k] - m * scale[k]),
      forward.mean,
      inverse,
    );
    // One rounding of x moves x̂ by this much; a variance near zero magnifies it.
    const steep = Float64Array.from({ length: c }, (_, k) => inverse[k] * (6 + 40 * inverse[k] ** 2));
    await checkOp(gpu, (buffers) => {
      const out = buffers.output([4, c]);
      const [mean, variance] = [buffers.output([c]), buffers.output([c])];
      const magnitude = rowsOf4(
        ...[1, 8, 0, 1].map((k) => (k === 0 ? all(c, 5) : steep.map((v) => v * (k + 1)))),
      );
      return {
        calls: batchNormStatistics(
          {
            x: buffers.operand(x, shape, dtype),
            weight: buffers.vector(w),
            bias: buffers.vector(b),
            eps,
            statistics: out,
            batchMean: mean,
            batchVariance: variance,
            temporary: scratch(buffers),
          },
          traits,
        ),
        outputs: [
          { operand: out, name: 'statistics', shape: [4, c], expected: statistics, magnitude, steps: 16 },
          { operand: mean, name: 'mean', shape: [c], expected: forward.mean, magnitude: all(c, 5) },
          {
            operand: variance,
            name: 'variance',
            shape: [c],
            expected: forward.variance.map((v) => (v * rows) / (rows - 1)),
            magnitude: all(c, 8),
            steps: 16,
          },
        ],
      };
    });

    const stats32 = Float32Array.from(statistics);
    for (const activation of ['none', 'relu', 'prelu'] as const) {
      const slope = activation === 'none' ? undefined : activation === 'relu' ? new Float32Array(c) : s;
      const { y } = batchNormTrainReference(x, w, b, eps, slope);
      const r = batchNormBackwardReference(x, dy, w, b, eps, slope);
      // z near zero may fall on either side of the kink after rounding; such elements say nothing.
      const kink = (i: number) => Math.abs(y[i]) < 1e-5 && activation !== 'none';
      if (Array.from(y, (_, i) => kink(i)).some(Boolean) && activation !== 'relu') continue;
      await checkOp(gpu, (buffers) => {
        const withOther = activation !== 'relu';
        const prelu = activation === 'prelu' ? buffers.vector(s) : undefined;
        const operand = buffers.operand(x, shape, dtype);
        const stats = buffers.operand(stats32, [4, c]);
        const extra = withOther ? buffers.operand(other, shape, dtype) : undefined;
        const [out, dx] = [buffers.output(shape, dtype), buffers.output(shape, dtype)];
        const [dWeight, dBias, dSlope] = [buffers.output([c]), buffers.output([c]), buffers.output([c])];
        const sumsTo = Float64Array.from({ length: c }, (_, k) => rows * (2 + 10 * inverse[k]));
        const each = (f: (k: number) => number) => Float64Array.from(x, (_, i) => f(i % c));
        return {
          calls: [
            ...batchNormApply(
              { x: operand, statistics: stats, activation, slope: prelu, residual: extra, y: out },
              traits,
            ),
            ...batchNormBackward(
              {
                x: operand,
                dy: buffers.operand(dy, shape, dtype),
                statistics: stats,
                activation,
                slope: prelu,
                fixed: false,
                extra,
                dx,
                dWeight,
                dBias,
                dSlope: prelu === undefined ? undefined : dSlope,
                temporary: scratch(buffers),
              },
              traits,
            ),
          ],
          outputs: [
            {
              operand: out,
              name: `y ${activation}`,
              shape,
              dtype,
              expected: y.map((v, i) => v + (withOther ? other[i] : 0)),
              magnitude: each((k) => 4 + 12 * inverse[k]),
            },
            {
              operand: dx,
              name: `dx ${activation}`,
              shape,
              dtype,
              expected: r.dx.map((v, i) => v + (withOther ? other[i] : 0)),
              magnitude: each((k) => 2 + inverse[k] * (4 + 40 * inverse[k] + 10 * inverse[k] ** 2)),
              steps: 16,
            },
            { operand: dWeight, name: 'dγ', shape: [c], expected: r.dWeight, magnitude: sumsTo, steps: 16 },
            { operand: dBias, name: 'dβ', shape: [c], expected: r.dBias, magnitude: all(c, rows), steps: 16 },
            ...(prelu === undefined
              ? []
              : [
                  {
                    operand: dSlope,
                    name: 'dα',
                    shape: [c],
                    expected: r.dSlope,
                    magnitude: sumsTo,
                    steps: 16,
                  },
                ]),
          ],
        };
      });
    }
  });
});

it('frozen batch norm: statistics from the running averages, dx a plain scaling', async () => {
  const gpu = await sharedGpu();
  const shape = [2, 3, 5, 7];
  const c = 7;
  const [x, dy] = [noise(product(shape), 1), noise(product(shape), 2)];
  const [w, b, m] = [noise(c, 3), noise(c, 4), noise(c, 5)];
  const v = noise(c, 6).map((a) => 0.3 + Math.abs(a));
  const y = batchNormReference(x, { weight: w, bias: b, mean: m, variance: v }, 1e-5);
  await checkOp(gpu, (buffers) => {
    const statistics = buffers.output([4, c]);
    const [out, dx] = [buffers.output(shape), buffers.output(shape)];
    const operand = buffers.operand(x, shape);
    const vectors = [w, b, m, v].map((p) => buffers.vector(p));
    return {
      calls: [
        ...runningStatistics({
          weight: vectors[0],
          bias: vectors[1],
          mean: vectors[2],
          variance: vectors[3],
          eps: 1e-5,
          statistics,
        }),
        ...batchNormApply({ x: operand, statistics, activation: 'none', y: out }, gpu.traits),
        ...batchNormBackward(
          {
            x: operand,
            dy: buffers.operand(dy, shape),
            statistics,
            activation: 'none',
            fixed: true,
            dx,
            dWeight: buffers.output([c]),
            dBias: buffers.output([c]),
            temporary: scratch(buffers),
          },
          gpu.traits,
        ),
      ],
      outputs: [
        { operand: out, name: 'y', shape, expected: y, magnitude: all(y.length, 8) },
        {
          operand: dx,
          name: 'dx',
          shape,
          expected: Float64Array.from(dy, (d, i) => (d * w[i % c]) / Math.sqrt(v[i % c] + 1e-5)),
          magnitude: all(y.length, 2),
        },
      ],
    };
  });
});

describe.each(STORAGES)('other backward kernels, stored as %s', (dtype) => {
  const input = (shape: readonly number[], seed: number) => roundedTo(dtype, noise(product(shape), seed));

  it.each(SHAPES.map((s) => [s.join('×'), s] as const))('PReLU, ReLU, softmax, L2: %s', async (_, shape) => {
    const gpu = await sharedGpu();
    const c = shape[shape.length - 1];
    const rows = product(shape) / c;
    const [x, dy, s] = [input(shape, 1), input(shape, 2), noise(c, 3)];
    const leaky = preluBackwardReference(x, dy, s);
    const relu = preluBackwardReference(x, dy, new Float32Array(c));
    const p = roundedTo(dtype, Float32Array.from(softmaxReference(x, c)));
    await checkOp(gpu, (buffers) => {
      const temporary = scratch(buffers);
      const [vx, vdy] = [buffers.operand(x, shape, dtype), buffers.operand(dy, shape, dtype)];
      const outs = [0, 1, 2, 3, 4].map(() => buffers.output(shape, dtype));
      const dSlope = buffers.output([c]);
      const whole = (name: string, k: number, expected: Float64Array, magnitude: number) => ({
        operand: outs[k],
        name,
        shape,
        dtype,
        expected,
        magnitude: all(x.length, magnitude),
        steps: 16,
      });
      const lengths = l2NormalizeReference(x, c, 1e-12);
      const shortest = Math.min(...Array.from(x, (v, i) => Math.abs(v / lengths[i])));
      return {
        calls: [
          ...activationBackward(
            { x: vx, dy: vdy, dx: outs[0], slope: buffers.vector(s), dSlope, temporary },
            gpu.traits,
          ),
          ...activationBackward({ x: vx, dy: vdy, dx: outs[1], temporary }, gpu.traits),
          ...softmaxBackward(buffers.operand(p, shape, dtype), vdy, outs[2]),
          ...l2NormalizeBackward(vx, vdy, 1e-12, outs[3]),
          ...l2NormalizeBackward(vx, vdy, 1e3, outs[4]),
        ],
        outputs: [
          whole('prelu', 0, leaky.dx, 1),
          whole('relu', 1, relu.dx, 1),
          whole('softmax', 2, softmaxBackwardReference(p, dy, c), 2),
          whole('l2', 3, l2NormalizeBackwardReference(x, dy, c, 1e-12), (2 + c) / shortest),
          whole('l2 of short rows', 4, l2NormalizeBackwardReference(x, dy, c, 1e3), 1e-3),
          {
            operand: dSlope,
            name: 'dα',
            shape: [c],
            expected: leaky.dSlope,
            magnitude: all(c, rows),
          },
        ],
      };
    });
  });

  it.each([
    [[1, 7, 5, 3], { kernel: 2, stride: 2, padding: 0 }, true],
    [[2, 9, 8, 10], { kernel: 3, stride: 2, padding: 0 }, true],
    [[1, 6, 6, 4], { kernel: 3, stride: 1, padding: 1 }, false],
    [[1, 5, 11, 7], { kernel: 3, stride: 2, padding: 1 }, true],
    [[3, 1, 1, 1], { kernel: 1, stride: 1, padding: 0 }, false],
    [[1, 7, 7, 5], { kernel: 2, stride: 3, padding: 0 }, false],
  ] as const)('pooling of %j by %j, ceil %s', async (shape, window, ceil) => {
    const gpu = await sharedGpu();
    const [n, h, w, c] = shape;
    const at = (size: number) => poolSize(size, window.kernel, window.stride, window.padding, ceil);
    const out = [n, at(h), at(w), c];
    // Coarse values, so that windows hold equal maxima.
    const x = input(shape, 1).map((v) => Math.round(v * 3) / 4);
    const dy = input(out, 2);
    const each = input([n, c], 4);
    const mean = Float64Array.from(x, (_, i) => each[Math.floor(i / (h * w * c)) * c + (i % c)] / (h * w));
    // Of both signs: a PReLU of negative slope turns the order of values below zero round.
    const slope = noise(c, 3);
    const active = preluReference(x, slope);
    await checkOp(gpu, (buffers) => {
      const outs = [0, 1, 2, 3].map(() => buffers.output(shape, dtype));
      const pooled = [0, 1, 2, 3].map(() => buffers.output(out, dtype));
      const places = [0, 1].map(() => buffers.output(placesShape(out)).ref);
      const map = buffers.operand(x, shape, dtype);
      const vdy = buffers.operand(dy, out, dtype);
      const whole = (name: string, k: number, expected: Float64Array) => ({
        operand: outs[k],
        name,
        shape,
        dtype,
        expected,
        magnitude: all(x.length, 9),
      });
      const most = (name: string, k: number, values: Float64Array | Float32Array) => ({
        operand: pooled[k],
        name,
        shape: out,
        dtype,
        expected: poolReference(values, shape, out, window, 'max'),
        magnitude: all(dy.length, 1),
        steps: 1,
      });
      return {
        calls: [
          ...maxPoolTraining({ x: map, window, y: pooled[0], places: places[0] }, gpu.traits),
          ...maxPoolTraining(
            {
              x: map,
              window,
              y: pooled[1],
              places: places[1],
              prelu: { slope: buffers.vector(slope), kept: pooled[2] },
            },
            gpu.traits,
          ),
          ...prelu(pooled[2], buffers.vector(slope), pooled[3]),
          ...maxPoolBackward({ dy: vdy, places: places[0], window, dx: outs[0] }, gpu.traits),
          ...maxPoolBackward({ dy: vdy, places: places[1], window, dx: outs[3] }, gpu.traits),
          ...avgPoolBackward(vdy, outs[1], window),
          ...globalAvgPoolBackward(buffers.operand(each, [n, c], dtype), outs[2]),
        ],
        outputs: [
          most('max', 0, x),
          most('max of PReLU', 1, active),
          most('PReLU of what was kept', 3, active),
          whole('through max', 0, poolBackwardReference(x, shape, dy, out, window, 'max')),
          whole('through max of PReLU', 3, poolBackwardReference(active, shape, dy, out, window, 'max')),
          whole('average', 1, poolBackwardReference(x, shape, dy, out, window, 'average')),
          whole('global average', 2, mean),
        ],
      };
    });
    close(
      differences((v) => globalAvgPoolReference(v, shape), x, each),
      mean,
      1e-6,
    );
  });

  it.each(['chw', 'hwc', 'whc', 'cwh'] as FlattenOrder[])('flatten %s, undone', async (order) => {
    const gpu = await sharedGpu();
    for (const shape of [
      [1, 1, 1, 1],
      [2, 3, 5, 7],
      [1, 4, 2, 8],
    ]) {
      const features = product(shape.slice(1));
      const dy = input([shape[0], features], 1);
      // Flattening the numbers of the places says where each came from.
      const places = flattenReference(
        Float64Array.from({ length: dy.length }, (_, i) => i),
        shape,
        order,
      );
      const expected = new Float64Array(dy.length);
      places.forEach((p, i) => {
        expected[p] = dy[i];
      });
      await checkOp(gpu, (buffers) => {
        const dx = buffers.output(shape, dtype);
        return {
          calls: flattenBackward(buffers.operand(dy, [shape[0], features], dtype), order, dx),
          outputs: [{ operand: dx, name: order, shape, dtype, expected, magnitude: all(dy.length, 0) }],
        };
      });
    }
  });
});

describe('dropout', () => {
  it('drops the same elements for the same seed, others for another, about as many as asked', async () => {
    const gpu = await sharedGpu();
    const shape = [3, 5, 7, 10];
    const x = noise(product(shape), 1);
    const rate = 0.3;
    const kept = (salt: number, seed: number) =>
      Float64Array.from(x, (v, i) =>
        dropoutKeeps(Math.floor(i / 10) * 12 + (i % 10), salt, seed, rate) ? v / (1 - rate) : 0,
      );
    const masks: string[] = [];
    for (const [salt, seed] of [
      [1, 5],
      [1, 6],
      [2, 5],
      [1, 4294967295],
    ]) {
      const expected = kept(salt, seed);
      masks.push(expected.map((v) => (v === 0 ? 0 : 1)).join(''));
      const share = expected.filter((v) => v === 0).length / x.length;
      expect(Math.abs(share - rate)).toBeLessThan(4 * Math.sqrt((rate * (1 - rate)) / x.length));
      await checkOp(gpu, (buffers) => {
        const y = buffers.output(shape);
        return {
          calls: dropout({
            x: buffers.operand(x, shape),
            rate,
            salt,
            step: buffers.bytes(Uint32Array.of(0, seed, 0, 0)),
            seedWord: 1,
            y,
          }),
          outputs: [{ operand: y, name: `seed ${seed}`, shape, expected, magnitude: all(x.length, 2) }],
        };
      });
    }
    expect(new Set(masks).size).toBe(masks.length);
  });
});

describe('losses', () => {
  it.each([
    [[1, 2], [1]],
    [
      [5, 3],
      [0, 2, 7, 1, 1],
    ],
    [
      [2, 3, 2, 10],
      [9, 10, 0, 4, 4, 5, 1, 2, 3, 4294967295, 7, 8],
    ],
    [
      [9, 130],
      [0, 1, 2, 3, 129, 64, 7, 8, 9],
    ],
    [
      [2, 4],
      [4, 5],
    ],
  ])('cross-entropy of %j', async (shape, labels) => {
    const gpu = await sharedGpu();
    const c = shape[shape.length - 1];
    // Large logits: exp alone would overflow.
    const x = noise(product(shape), 1).map((v) => 90 * v);
    const { loss, dx } = crossEntropyReference(x, labels, c);
    await checkOp(gpu, (buffers) => {
      const call = {
        logits: buffers.operand(x, shape),
        labels: buffers.bytes(Uint32Array.from(labels)),
        temporary: scratch(buffers),
      };
      const [value, out] = [buffers.output([1]), buffers.output(shape)];
      const three = buffers.operand(Float32Array.of(3), [1]);
      return {
        calls: [...crossEntropy(call, value), ...crossEntropyBackward(call, three, out)],
        outputs: [
          { operand: value, name: 'loss', shape: [1], expected: [loss], magnitude: [180] },
          {
            operand: out,
            name: 'dx',
            shape,
            expected: dx.map((v) => 3 * v),
            // A rounding of the exponent, up to 180, is a relative error of exp.
            magnitude: all(x.length, 3),
            steps: 200,
          },
        ],
      };
    });
  });

  it.each([[[1, 1]], [[7, 10]], [[3, 5, 4, 6]]])('smooth L1 of %j', async (shape) => {
    const gpu = await sharedGpu();
    const [x, t] = [noise(product(shape), 1), noise(product(shape), 2)];
    const { loss, dx } = smoothL1Reference(x, t, 0.7);
    await checkOp(gpu, (buffers) => {
      const [vx, vt] = [buffers.operand(x, shape), buffers.operand(t, shape)];
      const [value, out] = [buffers.output([1]), buffers.output(shape)];
      const two = buffers.operand(Float32Array.of(2), [1]);
      return {
        calls: [
          ...smoothL1(vx, vt, 0.7, value, scratch(buffers)),
          ...smoothL1Backward(vx, vt, 0.7, two, out),
        ],
        outputs: [
          { operand: value, name: 'loss', shape: [1], expected: [loss], magnitude: [2] },
          {
            operand: out,
            name: 'dx',
            shape,
            expected: dx.map((v) => 2 * v),
            magnitude: all(x.length, 4 / x.length),
          },
        ],
      };
    });
  });
});

it('sums repeat bit for bit', async () => {
  const gpu = await sharedGpu();
  const shape = [4, 17, 19, 12];
  const buffers = new Buffers(gpu);
  const x = buffers.operand(noise(product(shape), 1), shape);
  const dy = buffers.operand(noise(product(shape), 2), shape);
  const runs: Float32Array[] = [];
  for (let i = 0; i < 2; i++) {
    const vector = () => buffers.vector(noise(12, 3));
    const statistics = buffers.output([4, 12]);
    const [dx, dWeight] = [buffers.output(shape), buffers.output([12])];
    const temporary = scratch(buffers);
    const program = await Program.create(gpu, [
      ...batchNormStatistics<BufferRange>(
        {
          x,
          weight: vector(),
          bias: vector(),
          eps: 1e-5,
          statistics,
          batchMean: buffers.output([12]),
          batchVariance: buffers.output([12]),
          temporary,
        },
        gpu.traits,
      ),
      ...batchNormBackward<BufferRange>(
        {
          x,
          dy,
          statistics,
          activation: 'relu',
          fixed: false,
          dx,
          dWeight,
          dBias: buffers.output([12]),
          temporary,
        },
        gpu.traits,
      ),
    ]);
    await gpu.runAndRead((encoder) => program.record(encoder), []);
    runs.push(await readOperand(gpu, dx), await readOperand(gpu, dWeight));
    program.destroy();
  }
  expect(runs[2]).toEqual(runs[0]);
  expect(runs[3]).toEqual(runs[1]);
  buffers.destroy();
});

describe('what a step decides', () => {
  const parts = (square: number) => Float32Array.from({ length: 8 }, (_, i) => (i === 5 ? square : 0));
  it.each([
    // sum of squares, scale, good steps → scale, good steps, step, skipped, norm, factor, finite
    ['a good step', 16 * 64 ** 2, 64, 3, [64, 4, 8, 2, 4, 0.5 / 64, 1]],
    ['the scale grows after enough of them', 64 ** 2, 64, 1999, [128, 0, 8, 2, 1, 1 / 64, 1]],
    [
      'an infinity',
      Number.POSITIVE_INFINITY,
      64,
      1999,
      [32, 0, 7, 3, Number.POSITIVE_INFINITY, undefined, 0],
    ],
    ['a NaN', Number.NaN, 1, 5, [1, 0, 7, 3, undefined, undefined, 0]],
  ] as const)('%s', async (_, square, scale, good, expected) => {
    const gpu = await sharedGpu();
    const buffers = new Buffers(gpu);
    const words = new Uint32Array(STEP_WORDS);
    const floats = new Float32Array(words.buffer);
    floats[WORD.lossScale] = scale;
    words[WORD.good] = good;
    words[WORD.step] = 7;
    words[WORD.skipped] = 2;
    const step = buffers.bytes(words);
    const program = await Program.create(
      gpu,
      decideStep({ step, parts: buffers.bytes(parts(square)), partCount: 2 }, { clipNorm: 2, dynamic: true }),
    );
    const [bytes] = await gpu.runAndRead((encoder) => program.record(encoder), [step]);
    const [w, f] = [new Uint32Array(bytes), new Float32Array(bytes)];
    const got = [
      f[WORD.lossScale],
      w[WORD.good],
      w[WORD.step],
      w[WORD.skipped],
      f[WORD.norm],
      f[WORD.factor],
      w[WORD.finite],
    ];
    expected.forEach((v, i) => {
      if (v !== undefined) expect(got[i]).toBeCloseTo(v, 6);
    });
    program.destroy();
    buffers.destroy();
  });

  it('halves of a weight are those of the CPU, in either order', async () => {
    const gpu = await sharedGpu();
    const buffers = new Buffers(gpu);
    const shape = [6, 5, 3, 1];
    const packed = pack(noise(product(shape), 4), shape, 'conv');
    const master = buffers.bytes(packed.data);
    for (const packing of ['f16', 'f16pairs'] as const) {
      const copy = buffers.bytes(new Uint16Array(packed.data.length));
      const cast = { master, copy, length: packed.data.length, outputs: packed.outputs };
      const program = await Program.create(gpu, castWeight(cast, packing));
      const [bytes] = await gpu.runAndRead((encoder) => program.record(encoder), [copy]);
      expect(new Uint16Array(bytes)).toEqual(packedData(packed, packing));
      program.destroy();
    }
    buffers.destroy();
  });
});
