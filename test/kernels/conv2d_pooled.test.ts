import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { poolSize } from '../../src/graph/shapes.js';
import { conv2dForward } from '../../src/kernels/conv2d/forward.js';
import { planConv2d } from '../../src/kernels/conv2d/plan.js';
import { conv2dReference } from '../../src/kernels/conv2d/reference.js';
import type { Activation, Conv2dPlan, Conv2dShape } from '../../src/kernels/conv2d/types.js';
import { packParameter } from '../../src/kernels/packing.js';
import { poolReference } from '../../src/kernels/pool/reference.js';
import { checkOp, noise, roundedTo, sharedGpu } from '../check_op.js';
import { shapeOf } from './conv2d_shapes.js';

interface Case {
  storage: FloatType;
  bias: boolean;
  activation: Activation;
  kernel: 2 | 3;
  ceil: boolean;
}

const first = (batch: number, height: number, width: number, outputs: number) =>
  shapeOf(batch, height, width, 3, outputs, { padding: 0 });

/** Odd and even maps, so that windows hang over both borders, one, or none. */
const SHAPES: Conv2dShape[] = [
  first(1, 5, 5, 1),
  first(1, 12, 12, 10),
  first(2, 24, 24, 28),
  first(1, 9, 46, 32),
  first(3, 13, 8, 7),
];

const CASES: Case[] = [
  { storage: 'f32', bias: false, activation: 'none', kernel: 2, ceil: true },
  { storage: 'f32', bias: true, activation: 'prelu', kernel: 2, ceil: false },
  { storage: 'f32', bias: true, activation: 'prelu', kernel: 3, ceil: true },
  { storage: 'f32', bias: true, activation: 'relu', kernel: 3, ceil: false },
  { storage: 'f16', bias: true, activation: 'prelu', kernel: 2, ceil: true },
  { storage: 'f16', bias: true, activation: 'prelu', kernel: 3, ceil: true },
];

const describeShape = (s: Conv2dShape) => `[${s.batch},${s.inHeight},${s.inWidth},3]→${s.outChannels}`;

/** A largest value's error is at most that of its window's worst one. */
function reference(
  s: Conv2dShape,
  c: Case,
  shape: number[],
  data: Record<'x' | 'w', Float32Array> & Vectors,
) {
  const abs = (a?: Float32Array) => a?.map(Math.abs);
  const values = conv2dReference(s, data.x, data.w, data.bias);
  values.forEach((v, i) => {
    if (v >= 0 || c.activation === 'none') return;
    values[i] = c.activation === 'relu' ? 0 : v * data.slope![i % s.outChannels];
  });
  const window = { kernel: c.kernel, stride: 2, padding: 0 };
  const map = [s.batch, s.outHeight, s.outWidth, s.outChannels];
  return {
    expected: poolReference(values, map, shape, window, 'max'),
    magnitude: poolReference(
      conv2dReference(s, abs(data.x)!, abs(data.w)!, abs(data.bias)),
      map,
      shape,
      window,
      'max',
    ),
  };
}

interface Vectors {
  bias?: Float32Array;
  slope?: Float32Array;
}

async function check(s: Conv2dShape, c: Case, planned: (plan: Conv2dPlan) => Conv2dPlan): Promise<void> {
  const gpu = await sharedGpu();
  const ohwi = [s.outChannels, 3, 3, 3];
  const xShape = [s.batch, s.inHeight, s.inWidth, 3];
  const [height, width] = [s.outHeight, s.outWidth].map((n) => poolSize(n, c.kernel, 2, 0, c.ceil));
  const yShape = [s.batch, height, width, s.outChannels];
  const pool = { kernel: c.kernel, stride: 2 };
  const data = {
    x: roundedTo(
      c.storage,
      noise(
        xShape.reduce((a, b) => a * b, 1),
        3,
      ),
    ),
    w: noise(s.outChannels * 27, 2),
    bias: c.bias ? noise(s.outChannels, 4) : undefined,
    // Negative ones too: a maximum of activated values is not the activated maximum.
    slope: c.activation === 'prelu' ? noise(s.outChannels, 5) : undefined,
  };
  const plan = planned(planConv2d(s, gpu.traits, { pool }));
  if (plan.variant !== 'pooled') return;
  await checkOp(gpu, (buffers) => {
    const y = buffers.output(yShape, c.storage);
    const calls = conv2dForward(
      {
        shape: s,
        x: buffers.operand(data.x, xShape, c.storage),
        weight: buffers.bytes(packParameter(data.w, ohwi, 'conv', plan.packing)),
        bias: data.bias && buffers.vector(data.bias),
        slope: data.slope && buffers.vector(data.slope),
        activation: c.activation,
        pool,
        y,
      },
      plan,
      gpu.traits,
    );
    const name = `${calls[0].label} ${describeShape(s)} ${JSON.stringify(c)}`;
    return {
      calls,
      outputs: [{ name, shape: yShape, dtype: c.storage, operand: y, ...reference(s, c, yShape, data) }],
    };
  });
}

describe('conv2d forward with pooling', () => {
  it.each(SHAPES.map((s) => [describeShape(s), s] as const))('%s', async (_, s) => {
    for (const c of CASES) {
      await check(s, c, (plan) => plan);
      // Strips of a few rows, and workgroups of several subgroups.
      for (const rows of [1, 3])
        await check(s, c, (plan) => ({ ...plan, tile: { ...plan.tile, rows, size: 16 * rows } }));
    }
  });

  it('is planned for first layers only', async () => {
    const { traits } = await sharedGpu();
    const pool = { kernel: 3, stride: 2 };
    for (const s of [
      shapeOf(1, 12, 12, 4, 8, { padding: 0 }),
      shapeOf(1, 12, 12, 3, 8),
      shapeOf(1, 12, 12, 3, 8, { padding: 0, stride: 2 }),
    ])
      expect(planConv2d(s, traits, { pool }).variant).not.toBe('pooled');
    expect(planConv2d(SHAPES[1], traits, { pool: { kernel: 2, stride: 1 } }).variant).not.toBe('pooled');
    expect(planConv2d(SHAPES[1], traits).variant).not.toBe('pooled');
  });
});
