import { describe, expect, it } from 'vitest';
import type { BufferRange } from '../../src/gpu/gpu.js';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { Program } from '../../src/gpu/program.js';
import { fuseTraining } from '../../src/graph/fuse_training.js';
import { Graph } from '../../src/graph/graph.js';
import { trainingStrip } from '../../src/graph/lower.js';
import { batchNormStatistics } from '../../src/kernels/batchnorm/forward.js';
import type { PartialStatistics } from '../../src/kernels/batchnorm/partial.js';
import {
  batchNormBackwardReference,
  batchNormTrainReference,
} from '../../src/kernels/batchnorm/reference.js';
import { type DepthwiseStrip, stripStatistics } from '../../src/kernels/conv2d/depthwise.js';
import { conv2dForward } from '../../src/kernels/conv2d/forward.js';
import {
  conv2dGradInputReference,
  conv2dGradWeightReference,
} from '../../src/kernels/conv2d/grad_reference.js';
import { normDepthwiseBackward, takesNormDepthwise } from '../../src/kernels/conv2d/norm_depthwise.js';
import { planConv2d } from '../../src/kernels/conv2d/plan.js';
import { pointwise, pointwiseStatistics } from '../../src/kernels/conv2d/pointwise.js';
import { conv2dReference } from '../../src/kernels/conv2d/reference.js';
import type { Conv2dShape } from '../../src/kernels/conv2d/types.js';
import { pack } from '../../src/kernels/packing.js';
import { conv, norm, prelu } from '../../src/nets/layers.js';
import { Buffers, card, checkOp, noise, readOperand, roundedTo, sharedGpu } from '../check_op.js';
import { depthwise, k1, shapeOf } from './conv2d_shapes.js';

const EPS = 1e-3;
const filled = (length: number, value: number) => new Float64Array(length).fill(value);
const scratch = (buffers: Buffers) => (shape: readonly number[], dtype: FloatType) =>
  buffers.output(shape, dtype);
type Known = PartialStatistics<BufferRange>;

const SHAPES: Conv2dShape[] = [
  depthwise(2, 1, 1, 2),
  depthwise(2, 3, 5, 3),
  depthwise(2, 7, 7, 10, { stride: 2 }),
  depthwise(1, 8, 6, 5, { stride: 2 }),
  depthwise(2, 13, 12, 36),
  // More strips than invocations.
  depthwise(3, 29, 6, 260),
  depthwise(3, 13, 7, 32, { stride: 2, padding: 0 }),
  depthwise(1, 6, 8, 7, { padding: 0 }),
  depthwise(1, 6, 9, 7, { padding: 2 }),
  depthwise(1, 6, 9, 7, { padding: 2, stride: 2 }),
];

/** What there is to know of a layer, by the definitions. */
function layer(s: Conv2dShape, dtype: FloatType) {
  const c = s.inChannels;
  const shape = [s.batch, s.inHeight, s.inWidth, c];
  const out = [s.batch, s.outHeight, s.outWidth, c];
  const size = (of: number[]) => of.reduce((a, b) => a * b, 1);
  const offset = noise(c, 9);
  const x = roundedTo(
    dtype,
    noise(size(shape), 11).map((v, i) => v + offset[i % c]),
  );
  const dy = noise(size(out), 2);
  const [gamma, beta, slope, weight] = [noise(c, 3), noise(c, 4), noise(c, 5), noise(9 * c, 6)];
  const { y: a, mean, variance } = batchNormTrainReference(x, gamma, beta, EPS, slope);
  // z near zero may fall on either side of the kink after rounding; such elements would say nothing.
  expect(a.some((v) => Math.abs(v) < 1e-6)).toBe(false);
  const inverse = variance.map((v) => 1 / Math.sqrt(v + EPS));
  const scale = inverse.map((v, k) => v * gamma[k]);
  const statistics = [scale, mean.map((m, k) => beta[k] - m * scale[k]), mean, inverse];
  const g = conv2dGradInputReference(s, dy, weight);
  return {
    shape,
    out,
    x,
    dy,
    gamma,
    beta,
    slope,
    weight,
    packed: pack(weight, [c, 1, 3, 3], 'depthwise').data,
    statistics: Float32Array.from(statistics.flatMap((l) => Array.from(l))),
    inverse,
    y: conv2dReference(s, a, weight),
    norm: batchNormBackwardReference(x, g, gamma, beta, EPS, slope),
    dWeight: pack(Float32Array.from(conv2dGradWeightReference(s, a, dy)), [c, 1, 3, 3], 'depthwise').data,
  };
}

const named = (s: Conv2dShape) =>
  `${s.batch}×${s.inHeight}×${s.inWidth}×${s.inChannels} s${s.stride} p${s.padding}`;

describe.each(['f32', 'f16'] as const)(
  'batch norm, PReLU and depthwise layer, maps stored as %s',
  (dtype) => {
    it.each(SHAPES.map((s) => [named(s), s] as const))('%s', async (_, s) => {
      const gpu = await sharedGpu();
      expect(takesNormDepthwise(s, gpu.traits)).toBe(true);
      const l = layer(s, dtype);
      const c = s.inChannels;
      const rows = l.x.length / c;
      const each = (data: ArrayLike<number>, f: (inverse: number) => number) =>
        Float64Array.from(data, (_, i) => f(l.inverse[i % c]));
      // One rounding of x moves x̂ by this much; a variance near zero magnifies it.
      const steep = (v: number) => v * (6 + 40 * v ** 2);
      const after = batchNormTrainReference(l.y, l.gamma, l.beta, EPS);
      const spread = Math.max(...after.variance);
      await checkOp(gpu, (buffers) => {
        const x = buffers.operand(l.x, l.shape, dtype);
        const weight = buffers.bytes(l.packed);
        const slope = buffers.vector(l.slope);
        const statistics = buffers.operand(l.statistics, [4, c]);
        const y = buffers.output(l.out, dtype);
        const [batchMean, batchVariance] = [buffers.output([c]), buffers.output([c])];
        const dx = buffers.output(l.shape);
        const [dNormWeight, dNormBias, dSlope] = [[c], [c], [c]].map((shape) => buffers.output(shape));
        const dWeight = buffers.output([9, c]);
        const temporary = scratch(buffers);
        const plan = trainingStrip(planConv2d(s, gpu.traits), gpu.traits);
        const known: Known = stripStatistics(s, plan.tile as unknown as DepthwiseStrip, temporary)!;
        return {
          calls: [
            ...conv2dForward(
              {
                shape: s,
                x,
                weight,
                activation: 'none',
                norm: { statistics: statistics.ref, slope },
                y,
                statistics: known,
              },
              plan,
              gpu.traits,
            ),
            ...batchNormStatistics(
              {
                x: y,
                known,
                weight: buffers.vector(l.gamma),
                bias: buffers.vector(l.beta),
                eps: EPS,
                statistics: buffers.output([4, c]),
                batchMean,
                batchVariance,
                temporary,
              },
              gpu.traits,
            ),
            ...normDepthwiseBackward(
              {
                shape: s,
                x,
                dy: buffers.operand(l.dy, l.out),
                statistics,
                slope,
                weight,
                fixed: false,
                dx,
                dNormWeight,
                dNormBias,
                dSlope,
                dWeight,
                temporary,
              },
              gpu.traits,
            ),
          ],
          outputs: [
            {
              operand: y,
              name: 'y',
              shape: l.out,
              dtype,
              expected: l.y,
              magnitude: each(l.y, (v) => 9 * (4 + 12 * v)),
            },
            ...(l.y.length > c
              ? [
                  {
                    operand: batchMean,
                    name: 'mean of y',
                    shape: [c],
                    expected: after.mean,
                    magnitude: each(after.mean, (v) => 9 * (4 + 12 * v)),
                  },
                  {
                    operand: batchVariance,
                    name: 'variance of y',
                    shape: [c],
                    expected: after.variance.map((v) => (v * l.y.length) / (l.y.length - c)),
                    magnitude: each(after.variance, (v) => (1 + spread) * 9 * (4 + 12 * v)),
                    steps: 16,
                  },
                ]
              : []),
            {
              operand: dx,
              name: 'dx',
              shape: l.shape,
              expected: l.norm.dx,
              magnitude: each(l.x, (v) => 9 * (2 + steep(v) + 10 * v ** 2)),
              steps: 16,
            },
            {
              operand: dNormWeight,
              name: 'dγ',
              shape: [c],
              expected: l.norm.dWeight,
              magnitude: each(l.inverse, (v) => rows * 9 * (2 + 10 * v)),
              steps: 16,
            },
            {
              operand: dNormBias,
              name: 'dβ',
              shape: [c],
              expected: l.norm.dBias,
              magnitude: filled(c, 9 * rows),
              steps: 16,
            },
            {
              operand: dSlope,
              name: 'dα',
              shape: [c],
              expected: l.norm.dSlope,
              magnitude: each(l.inverse, (v) => rows * 9 * (2 + 10 * v)),
              steps: 16,
            },
            {
              operand: dWeight,
              name: 'dw',
              shape: [9, c],
              expected: unpadded(l.dWeight, c),
              magnitude: Float64Array.from({ length: 9 * c }, (_, i) => rows * (4 + 12 * l.inverse[i % c])),
              steps: 16,
            },
          ],
        };
      });
    });
  },
);

function unpadded(data: Float32Array, c: number): Float32Array {
  const padded = data.length / 9;
  return Float32Array.from({ length: 9 * c }, (_, i) => data[Math.floor(i / c) * padded + (i % c)]);
}

it('the gradients repeat bit for bit; those under fixed statistics are a plain scaling', async () => {
  const gpu = await sharedGpu();
  const s = depthwise(2, 13, 12, 36);
  const l = layer(s, 'f32');
  const buffers = new Buffers(gpu);
  const run = async (fixed: boolean) => {
    const vectors = [[36], [36], [36], [9, 36]].map((shape) => buffers.output(shape));
    const [dNormWeight, dNormBias, dSlope, dWeight] = vectors;
    const dx = buffers.output(l.shape);
    const program = await Program.create(
      gpu,
      normDepthwiseBackward<BufferRange>(
        {
          shape: s,
          x: buffers.operand(l.x, l.shape),
          dy: buffers.operand(l.dy, l.out),
          statistics: buffers.operand(l.statistics, [4, 36]),
          slope: buffers.vector(l.slope),
          weight: buffers.bytes(l.packed),
          fixed,
          dx,
          dNormWeight,
          dNormBias,
          dSlope,
          dWeight,
          temporary: scratch(buffers),
        },
        gpu.traits,
      ),
    );
    await gpu.runAndRead((encoder) => program.record(encoder), []);
    program.destroy();
    return Promise.all([dx, ...vectors].map((operand) => readOperand(gpu, operand)));
  };
  const [first, second, fixed] = [await run(false), await run(false), await run(true)];
  expect(second).toEqual(first);
  expect(fixed.slice(1)).toEqual(first.slice(1));
  const g = conv2dGradInputReference(s, l.dy, l.weight);
  const [scale, shift] = [0, 36].map((at) => l.statistics.subarray(at, at + 36));
  for (let i = 0; i < g.length; i++) {
    const k = i % 36;
    const dz = Math.fround(l.x[i]) * scale[k] + shift[k] > 0 ? g[i] : l.slope[k] * g[i];
    expect(Math.abs(fixed[0][i] - scale[k] * dz)).toBeLessThan(1e-4);
  }
  buffers.destroy();
});

it('a 1×1 layer leaves the statistics of what it writes, also of a mean far from zero', async () => {
  const gpu = await sharedGpu();
  const s = shapeOf(3, 19, 17, 37, 41, k1);
  const rows = s.batch * s.outHeight * s.outWidth;
  const [x, weight] = [noise(rows * 37, 1), noise(37 * 41, 2)];
  const bias = noise(41, 3).map((v) => 300 * v);
  const expected = conv2dReference(s, x, weight, bias);
  const { mean, variance } = batchNormTrainReference(expected, filled(41, 1), filled(41, 0), EPS);
  await checkOp(gpu, (buffers) => {
    const temporary = scratch(buffers);
    const y = buffers.output([rows, 41]);
    const vector = (value: number) => buffers.vector(Float32Array.from(filled(41, value)));
    const [batchMean, batchVariance] = [buffers.output([41]), buffers.output([41])];
    const known: Known = pointwiseStatistics(rows, 41, gpu.traits, temporary);
    return {
      calls: [
        ...pointwise(
          {
            label: 'conv2d.forward',
            x: buffers.operand(x, [rows, 37]),
            weight: buffers.bytes(pack(weight, [41, 37, 1, 1], 'conv').data),
            turned: false,
            bias: buffers.vector(bias),
            y,
            statistics: known,
          },
          gpu.traits,
        ),
        ...batchNormStatistics<BufferRange>(
          {
            x: y,
            known,
            weight: vector(1),
            bias: vector(0),
            eps: EPS,
            statistics: buffers.output([4, 41]),
            batchMean,
            batchVariance,
            temporary,
          },
          gpu.traits,
        ),
      ],
      outputs: [
        { operand: y, name: 'y', shape: [rows, 41], expected, magnitude: filled(rows * 41, 337) },
        { operand: batchMean, name: 'mean', shape: [41], expected: mean, magnitude: filled(41, 337) },
        {
          operand: batchVariance,
          name: 'variance',
          shape: [41],
          expected: variance.map((v) => (v * rows) / (rows - 1)),
          // Twice a deviation of at most 12 times the rounding of a value.
          magnitude: filled(41, 24 * 337),
        },
      ],
    };
  });
});

describe('in a graph', () => {
  /** PReLU of a norm, then a depthwise layer, and what `more` does with the activated map. */
  function graph(more: (g: Graph, a: { id: number; shape: readonly number[] }) => void = () => {}): Graph {
    const g = new Graph('g', { training: true });
    const a = prelu(g, 'p', norm(g, 'bn', conv(g, 'c', g.input('x', [2, 6, 6, 3]), 8, { kernel: 1 })));
    g.output('y', conv(g, 'd', a, 8, { kernel: 3, padding: 1, groups: 8 }));
    more(g, a);
    return g;
  }
  const ops = (g: Graph) => g.nodes.map((n) => n.op);

  it('on a software adapter they are one op, unless something else needs the activated map', async () => {
    const { traits } = await sharedGpu();
    expect(ops(fuseTraining(graph(), traits).graph)).toContain('batchNormConv2d');
    const used = graph((g, a) => g.output('a', a));
    expect(ops(fuseTraining(used, traits).graph)).toContain('batchNormApply');
    expect(ops(fuseTraining(used, traits).graph)).not.toContain('batchNormConv2d');
  });

  it('a card keeps them apart', async () => {
    const { traits } = await sharedGpu();
    expect(ops(fuseTraining(graph(), card(traits)).graph)).not.toContain('batchNormConv2d');
  });
});
