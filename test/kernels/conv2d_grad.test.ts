import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { type DeviceTraits, TILE_SIDES } from '../../src/gpu/traits.js';
import { isAllowed, TILES } from '../../src/kernels/conv2d/gemm.js';
import { conv2dGradInput } from '../../src/kernels/conv2d/grad_input.js';
import { planGradInput, planGradWeight } from '../../src/kernels/conv2d/grad_plan.js';
import {
  conv2dGradInputReference,
  conv2dGradWeightReference,
} from '../../src/kernels/conv2d/grad_reference.js';
import { conv2dGradWeight } from '../../src/kernels/conv2d/grad_weight.js';
import { pointwise, takesPointwise } from '../../src/kernels/conv2d/pointwise.js';
import { conv2dReference } from '../../src/kernels/conv2d/reference.js';
import type { Conv2dShape } from '../../src/kernels/conv2d/types.js';
import { type ParameterLayout, pack, packIndices } from '../../src/kernels/packing.js';
import { channelSum } from '../../src/kernels/reduce/channel_sum.js';
import { channelSumReference } from '../../src/kernels/reduce/reference.js';
import { card, checkOp, noise, roundedTo, sharedGpu, TOO_SMALL, tuned } from '../check_op.js';
import { depthwise, k1, shapeOf } from './conv2d_shapes.js';
import { emulated, NO_F16, NO_UNITS, truncated, withUnits } from './matrix_units.js';

const SHAPES: Conv2dShape[] = [
  shapeOf(1, 1, 1, 1, 1),
  shapeOf(1, 1, 1, 5, 3, k1),
  shapeOf(1, 3, 5, 2, 7),
  shapeOf(2, 5, 3, 3, 10, { padding: 0 }),
  shapeOf(1, 7, 7, 3, 32, { stride: 2 }),
  shapeOf(5, 7, 13, 10, 16, { padding: 0 }),
  shapeOf(2, 13, 7, 7, 5, { padding: 3, dilation: 2 }),
  shapeOf(1, 9, 8, 5, 7, { kernelHeight: 2, kernelWidth: 2, padding: 0 }),
  shapeOf(2, 7, 7, 33, 35, { stride: 2 }),
  shapeOf(2, 8, 6, 32, 36, { stride: 2 }),
  shapeOf(1, 13, 7, 10, 2, k1),
  shapeOf(3, 5, 5, 32, 7, { ...k1, stride: 2 }),
  shapeOf(1, 6, 5, 3, 5, { ...k1, padding: 1 }),
  // Rows and columns that no window reaches; strides and dilations with and without a common factor.
  shapeOf(1, 8, 8, 3, 5, { stride: 2, padding: 0, kernelHeight: 3, kernelWidth: 2 }),
  shapeOf(1, 11, 10, 5, 3, { stride: 3, padding: 2 }),
  shapeOf(1, 9, 10, 3, 3, { stride: 2, dilation: 2, padding: 2 }),
  shapeOf(1, 12, 11, 3, 3, { stride: 4, dilation: 2, padding: 1 }),
  shapeOf(1, 2, 2, 3, 3, { ...k1, stride: 3 }),
  shapeOf(2, 11, 9, 17, 18, { stride: 3, dilation: 2, padding: 2 }),
  // More pixels than one chunk of a split.
  shapeOf(2, 33, 17, 5, 9),
  // Dense layers: the filter covers the map.
  shapeOf(1, 3, 3, 17, 34, { padding: 0 }),
  shapeOf(5, 1, 1, 130, 10, k1),
  shapeOf(3, 7, 6, 10, 33, { kernelHeight: 7, kernelWidth: 6, padding: 0 }),
  shapeOf(17, 2, 3, 9, 20, { kernelHeight: 2, kernelWidth: 3, padding: 0 }),
  // Pixels, channels in and out that do not fill the last tile of a 1×1 product.
  shapeOf(3, 19, 17, 37, 41, k1),
];

/** For matrix units: classes of a stride, more pixels than a split, tiles of either side that are not full. */
const MATRIX_SHAPES: Conv2dShape[] = [
  shapeOf(3, 8, 6, 32, 36, { stride: 2 }),
  shapeOf(3, 19, 17, 37, 41, k1),
  shapeOf(4, 14, 12, 17, 34, { stride: 3, dilation: 2, padding: 2 }),
  shapeOf(2, 23, 17, 131, 34),
];

const DEPTHWISE_SHAPES: Conv2dShape[] = [
  depthwise(1, 1, 1, 2),
  depthwise(1, 3, 5, 3),
  depthwise(2, 7, 7, 10, { stride: 2 }),
  depthwise(1, 8, 6, 5, { stride: 2 }),
  depthwise(1, 13, 13, 64),
  depthwise(3, 13, 7, 32, { stride: 2, padding: 0 }),
  depthwise(1, 6, 8, 7, { padding: 0 }),
  depthwise(1, 6, 9, 7, { padding: 2 }),
  depthwise(1, 6, 9, 7, { padding: 2, stride: 2 }),
  depthwise(1, 33, 19, 5),
  depthwise(5, 7, 7, 28, { kernelHeight: 7, kernelWidth: 7, padding: 0 }),
  depthwise(1, 7, 6, 64, { kernelHeight: 7, kernelWidth: 6, padding: 0 }),
  depthwise(1, 13, 13, 7, { dilation: 2, padding: 3 }),
  depthwise(1, 9, 9, 3, { stride: 3, padding: 0 }),
];

const GROUPED_SHAPES: Conv2dShape[] = [
  shapeOf(1, 5, 5, 128, 128, { groups: 64 }),
  shapeOf(2, 3, 7, 6, 10, { groups: 2, stride: 2 }),
  shapeOf(1, 7, 5, 9, 3, { groups: 3, padding: 0 }),
  shapeOf(2, 13, 11, 3, 9, { groups: 3 }),
];

const describeShape = (s: Conv2dShape): string =>
  `[${s.batch},${s.inHeight},${s.inWidth},${s.inChannels}]→${s.outChannels} ${s.kernelHeight}×${s.kernelWidth} s${s.stride} p${s.padding} d${s.dilation} g${s.groups}`;

const layoutOf = (s: Conv2dShape): ParameterLayout =>
  s.groups === 1 ? 'conv' : s.groups === s.inChannels && s.groups === s.outChannels ? 'depthwise' : 'grouped';

const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const xShapeOf = (s: Conv2dShape) => [s.batch, s.inHeight, s.inWidth, s.inChannels];
const yShapeOf = (s: Conv2dShape) => [s.batch, s.outHeight, s.outWidth, s.outChannels];
const wShapeOf = (s: Conv2dShape) => [s.outChannels, s.inChannels / s.groups, s.kernelHeight, s.kernelWidth];

/** A gradient in the packed layout of the weight, as a matrix [rows, Op], padding included. */
function packedMatrix(s: Conv2dShape, outside: Float64Array): { shape: number[]; data: Float64Array } {
  const { length, outputs } = packIndices(wShapeOf(s), layoutOf(s), undefined, () => {});
  const data = new Float64Array(length);
  packIndices(wShapeOf(s), layoutOf(s), undefined, (o, i) => {
    data[i] = outside[o];
  });
  return { shape: [length / outputs, outputs], data };
}

interface Storage {
  x: FloatType;
  dy: FloatType;
  /** Whether dx is added to another gradient. */
  extra?: boolean;
}

const STORAGES: Storage[] = [
  { x: 'f32', dy: 'f32' },
  { x: 'f16', dy: 'f32' },
  { x: 'f16', dy: 'f16' },
  { x: 'f32', dy: 'f32', extra: true },
];

interface Units {
  units: 'own' | 'emulated';
  /** Small whole numbers, of which no sum is rounded. */
  whole: boolean;
}

/** Matrix units take weights as halves where gradients are. */
const unitsFor = (c: Storage, traits: DeviceTraits): Units | undefined =>
  traits.subgroupMatrix && c.dy === 'f16' ? { units: 'own', whole: false } : undefined;

/** @param u weights that are halves, for kernels by matrix units. */
async function check(s: Conv2dShape, c: Storage, traits: DeviceTraits, u?: Units): Promise<string[]> {
  const gpu = await sharedGpu(u?.units === 'own' ? { matrixUnits: true } : {});
  const some = (n: number, seed: number) =>
    u?.whole ? noise(n, seed).map((v) => Math.round(2 * v)) : noise(n, seed);
  const x = roundedTo(c.x, some(size(xShapeOf(s)), 3));
  const dy = roundedTo(c.dy, some(size(yShapeOf(s)), 7));
  const w = roundedTo(u ? 'f16' : 'f32', some(size(wShapeOf(s)), 2));
  const steps = (terms: number) => (u && !u.whole ? Math.max(8, truncated(terms)) : undefined);
  const extra = noise(size(xShapeOf(s)), 9).map((v) => (c.extra ? v : 0));
  const abs = (a: Float32Array) => a.map(Math.abs);
  const dw = packedMatrix(s, conv2dGradWeightReference(s, x, dy));
  const dwMagnitude = packedMatrix(s, conv2dGradWeightReference(s, abs(x), abs(dy)));
  const labels: string[] = [];
  await checkOp(gpu, (buffers) => {
    const temporary = (shape: readonly number[], dtype: FloatType) => buffers.output(shape, dtype);
    const dyOperand = buffers.operand(dy, yShapeOf(s), c.dy);
    // dx has the storage of x, as in a graph.
    const dx = buffers.output(xShapeOf(s), c.x);
    const gradient = buffers.output(dw.shape);
    const calls = [
      ...conv2dGradInput(
        {
          shape: s,
          dy: dyOperand,
          weight: buffers.bytes(pack(w, wShapeOf(s), layoutOf(s)).data),
          dx,
          extra: c.extra ? buffers.operand(extra, xShapeOf(s), c.dy) : undefined,
          temporary,
        },
        traits,
      ),
      ...conv2dGradWeight(
        { shape: s, x: buffers.operand(x, xShapeOf(s), c.x), dy: dyOperand, dw: gradient.ref, temporary },
        traits,
      ),
    ];
    labels.push(...calls.map((k) => k.label));
    const name = `${describeShape(s)} ${JSON.stringify(c)} ${labels.join(' + ')}`;
    return {
      calls: u?.units === 'emulated' ? calls.map(emulated) : calls,
      outputs: [
        {
          name: `dx ${name}`,
          steps: steps(s.kernelHeight * s.kernelWidth * s.outChannels),
          shape: xShapeOf(s),
          dtype: c.x,
          operand: dx,
          expected: conv2dGradInputReference(s, dy, w).map((v, i) => v + extra[i]),
          magnitude: conv2dGradInputReference(s, abs(dy), abs(w)).map((v, i) => v + Math.abs(extra[i])),
        },
        {
          name: `dw ${name}`,
          steps: steps(s.batch * s.outHeight * s.outWidth),
          shape: dw.shape,
          operand: gradient,
          expected: dw.data,
          magnitude: dwMagnitude.data,
        },
      ],
    };
  });
  return labels;
}

describe('gradients of conv2d', () => {
  const all = [...SHAPES, ...DEPTHWISE_SHAPES, ...GROUPED_SHAPES];

  it.each(all.map((s) => [describeShape(s), s] as const))('planned for this device: %s', async (_, s) => {
    const { traits } = await sharedGpu();
    for (const c of STORAGES) await check(s, c, traits, unitsFor(c, traits));
  });

  // A software adapter compiles a card's kernel, all barriers, for seconds.
  it.each(all.map((s) => [describeShape(s), s] as const))(
    'planned for a card: %s',
    async (_, s) => {
      const { traits } = await sharedGpu();
      for (const c of STORAGES) await check(s, c, card(traits), unitsFor(c, traits));
    },
    300_000,
  );

  // What is planned untuned, 64, is tested above.
  it.for(TILE_SIDES.filter((side) => side !== 64))(
    'in tiles of %i',
    { timeout: 300_000 },
    async (side, context) => {
      // More than one tile in both gradients, none at the border full; classes of a stride; several chunks.
      const s = shapeOf(3, 23, 21, 69, 70, { stride: 2 });
      const traits = tuned((await sharedGpu()).traits, side, 1);
      context.skip(!isAllowed(TILES[side], traits), TOO_SMALL);
      expect(planGradInput(s, traits)).toMatchObject({ variant: 'tiled', tile: { side } });
      expect(planGradWeight(s, traits)).toMatchObject({ variant: 'tiled', tile: { side } });
      await check(s, { x: 'f16', dy: 'f32' }, traits);
    },
  );

  it('are planned by the tuning of a card', async () => {
    const { traits } = await sharedGpu();
    const roomy = { ...card(traits), maxInvocations: 256, maxWorkgroupBytes: 32768 };
    const s = shapeOf(16, 56, 56, 128, 128);
    const side = (workgroups: number) => {
      const plan = planGradInput(s, tuned(roomy, 128, workgroups));
      return plan.variant === 'tiled' && plan.tile.side;
    };
    expect([side(392), side(393)]).toEqual([128, 64]);
    const weight = (workgroups: number) => planGradWeight(s, tuned(roomy, 64, workgroups)).splits;
    expect(planGradWeight(s, roomy).splits).toBe(weight(128));
    // 18 × 2 tiles: eight times as many in all as fill the card.
    expect([weight(128), weight(36)]).toEqual([29, 8]);
  });

  const HALVES: Storage = { x: 'f16', dy: 'f16' };

  it.for(MATRIX_SHAPES.map((s) => [describeShape(s), s] as const))(
    'by matrix units, emulated: %s',
    { timeout: 300_000 },
    async ([, s], context) => {
      const { traits } = await sharedGpu();
      context.skip(!traits.shaderF16, NO_F16);
      for (const whole of [true, false]) {
        const labels = await check(s, HALVES, withUnits(traits), { units: 'emulated', whole });
        expect(labels).toContain('conv2d.grad_input.matrix');
        expect(labels).toContain('conv2d.grad_weight.matrix');
      }
    },
  );

  it.for([...SHAPES, ...MATRIX_SHAPES].map((s) => [describeShape(s), s] as const))(
    "by the device's own matrix units: %s",
    { timeout: 300_000 },
    async ([, s], context) => {
      const { traits } = await sharedGpu({ matrixUnits: true });
      context.skip(!traits.subgroupMatrix, NO_UNITS);
      for (const whole of [true, false]) await check(s, HALVES, traits, { units: 'own', whole });
    },
  );

  it('take matrix units only where the maps are f16', async () => {
    const { traits } = await sharedGpu();
    for (const s of MATRIX_SHAPES) {
      expect(planGradInput(s, withUnits(traits), true).variant).toBe('matrix');
      expect(planGradWeight(s, withUnits(traits), true).variant).toBe('matrix');
      expect(planGradInput(s, withUnits(traits)).variant).toBe('tiled');
      expect(planGradWeight(s, withUnits(traits)).variant).toBe('tiled');
    }
  });

  it('reach every variant by these shapes', async () => {
    const { traits } = await sharedGpu();
    const found = new Set<string>();
    for (const s of all) {
      for (const t of [traits, card(traits)]) {
        found.add(`input ${planGradInput(s, t).variant}`);
        found.add(`weight ${planGradWeight(s, t).variant}`);
      }
    }
    for (const variant of ['direct', 'tiled', 'depthwise', 'strip', 'grouped']) {
      expect(found).toContain(`input ${variant}`);
      expect(found).toContain(`weight ${variant}`);
    }
    expect(found).toContain('input global');
    if (traits.kind === 'cpu' && traits.subgroups) {
      expect(found).toContain('input pointwise');
      expect(found).toContain('input subgroup');
      expect(found).toContain('weight subgroup');
    }
  });

  it.each(STORAGES)('share a kernel with the 1×1 forward pass of a step, stored as %j', async (c) => {
    const gpu = await sharedGpu();
    const s = SHAPES[SHAPES.length - 1];
    if (!takesPointwise(s, s.outChannels, gpu.traits)) return;
    const [x, w, bias] = [
      roundedTo(c.x, noise(size(xShapeOf(s)), 3)),
      noise(size(wShapeOf(s)), 2),
      noise(41, 5),
    ];
    const abs = (a: Float32Array) => a.map(Math.abs);
    const rows = size(xShapeOf(s)) / s.inChannels;
    await checkOp(gpu, (buffers) => {
      const [plain, biased] = [buffers.output([rows, 41], c.dy), buffers.output([rows, 41], c.dy)];
      const call = {
        label: 'forward',
        x: buffers.operand(x, [rows, s.inChannels], c.x),
        weight: buffers.bytes(pack(w, wShapeOf(s), 'conv').data),
        turned: false,
      };
      const output = (name: string, operand: typeof plain, b?: Float32Array) => ({
        name,
        operand,
        shape: [rows, 41],
        dtype: c.dy,
        expected: conv2dReference(s, x, w, b),
        magnitude: conv2dReference(s, abs(x), abs(w), b && abs(b)),
      });
      return {
        calls: [
          ...pointwise({ ...call, y: plain }, gpu.traits),
          ...pointwise({ ...call, y: biased, bias: buffers.vector(bias) }, gpu.traits),
        ],
        outputs: [output('plain', plain), output('biased', biased, bias)],
      };
    });
  });

  it('gives the same bits twice', async () => {
    const gpu = await sharedGpu();
    const s = shapeOf(4, 28, 28, 8, 16);
    const { Buffers, readOperand } = await import('../check_op.js');
    const { Program } = await import('../../src/gpu/program.js');
    const buffers = new Buffers(gpu);
    const x = buffers.operand(noise(size(xShapeOf(s)), 3), xShapeOf(s));
    const dy = buffers.operand(noise(size(yShapeOf(s)), 7), yShapeOf(s));
    const run = async () => {
      const dw = buffers.output([9 * 8, 16]);
      const program = await Program.create(
        gpu,
        conv2dGradWeight(
          { shape: s, x, dy, dw: dw.ref, temporary: (shape, dtype) => buffers.output(shape, dtype) },
          gpu.traits,
        ),
      );
      await gpu.runAndRead((encoder) => program.record(encoder), []);
      program.destroy();
      return readOperand(gpu, dw);
    };
    const first = await run();
    expect(await run()).toEqual(first);
    buffers.destroy();
  });

  it('have references that agree with central differences', () => {
    const h = 1e-4;
    for (const s of [
      shapeOf(2, 5, 4, 3, 5, { stride: 2 }),
      shapeOf(1, 6, 7, 2, 3, { padding: 2, dilation: 2 }),
      shapeOf(1, 7, 5, 4, 6, { groups: 2, stride: 3, padding: 0 }),
      depthwise(1, 5, 4, 3, { stride: 2 }),
    ]) {
      const x = Float64Array.from(noise(size(xShapeOf(s)), 3));
      const w = Float64Array.from(noise(size(wShapeOf(s)), 2));
      const dy = Float64Array.from(noise(size(yShapeOf(s)), 7));
      const loss = () => conv2dReference(s, x, w).reduce((sum, v, i) => sum + v * dy[i], 0);
      const differences = (values: Float64Array) =>
        values.map((v, i) => {
          values[i] = v + h;
          const above = loss();
          values[i] = v - h;
          const below = loss();
          values[i] = v;
          return (above - below) / (2 * h);
        });
      expect(largestDifference(conv2dGradInputReference(s, dy, w), differences(x))).toBeLessThan(1e-8);
      expect(largestDifference(conv2dGradWeightReference(s, x, dy), differences(w))).toBeLessThan(1e-8);
    }
  });

  it('have references that agree with TensorFlow.js', async () => {
    await tf.setBackend('cpu');
    // TensorFlow.js has gradients for dilation 1 and no groups between one and all.
    for (const s of [SHAPES[2], SHAPES[4], SHAPES[5], SHAPES[8], SHAPES[9], SHAPES[14], SHAPES[22]]) {
      await compareWithTensorFlow(s, [2, 3, 1, 0], [3, 2, 0, 1], (x, w) =>
        tf.conv2d(x, w, s.stride, s.padding || 'valid'),
      );
    }
    for (const s of [DEPTHWISE_SHAPES[2], DEPTHWISE_SHAPES[3], DEPTHWISE_SHAPES[5], DEPTHWISE_SHAPES[7]]) {
      await compareWithTensorFlow(s, [2, 3, 0, 1], [2, 3, 0, 1], (x, w) =>
        tf.depthwiseConv2d(x, w, s.stride, s.padding || 'valid'),
      );
    }
  });
});

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
};

async function compareWithTensorFlow(
  s: Conv2dShape,
  toTensorFlow: number[],
  fromTensorFlow: number[],
  f: (x: tf.Tensor4D, w: tf.Tensor4D) => tf.Tensor,
): Promise<void> {
  const x = noise(size(xShapeOf(s)), 3);
  const w = noise(size(wShapeOf(s)), 2);
  const dy = noise(size(yShapeOf(s)), 7);
  const filter = tf.transpose(tf.tensor4d(w, wShapeOf(s) as [number, number, number, number]), toTensorFlow);
  const [dx, dw] = tf.grads((a, b) => f(a as tf.Tensor4D, b as tf.Tensor4D))(
    [tf.tensor4d(x, xShapeOf(s) as [number, number, number, number]), filter],
    tf.tensor4d(dy, yShapeOf(s) as [number, number, number, number]),
  );
  expect(largestDifference(conv2dGradInputReference(s, dy, w), await dx.data())).toBeLessThan(2e-4);
  const back = tf.transpose(dw, fromTensorFlow);
  expect(back.shape).toEqual(wShapeOf(s));
  expect(largestDifference(conv2dGradWeightReference(s, x, dy), await back.data())).toBeLessThan(2e-4);
}

describe('channel sum', () => {
  it.each([
    [1, 1],
    [3, 7],
    [1000, 10],
    [4097, 64],
    [65, 130],
  ])('[%i, %i]', async (rows, channels) => {
    const gpu = await sharedGpu();
    for (const traits of [gpu.traits, card(gpu.traits)]) {
      for (const storage of ['f32', 'f16'] as const) {
        const x = roundedTo(storage, noise(rows * channels, 3));
        await checkOp(gpu, (buffers) => {
          const y = buffers.output([1, channels]);
          const calls = channelSum(
            {
              x: buffers.operand(x, [rows, channels], storage),
              y: y.ref,
              temporary: (shape, dtype) => buffers.output(shape, dtype),
            },
            traits,
          );
          const expected = channelSumReference(x, channels);
          const magnitude = channelSumReference(x.map(Math.abs), channels);
          return { calls, outputs: [{ name: 'sum', shape: [1, channels], operand: y, expected, magnitude }] };
        });
      }
    }
  });
});
