import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { type DeviceTraits, TILE_SIDES, type TileSide } from '../../src/gpu/traits.js';
import { conv2dForward } from '../../src/kernels/conv2d/forward.js';
import { isAllowed, TILES } from '../../src/kernels/conv2d/gemm.js';
import { tileOf } from '../../src/kernels/conv2d/matrix.js';
import { planConv2d } from '../../src/kernels/conv2d/plan.js';
import { conv2dReference } from '../../src/kernels/conv2d/reference.js';
import { splitTile } from '../../src/kernels/conv2d/tiled.js';
import type { Activation, Conv2dPlan, Conv2dShape } from '../../src/kernels/conv2d/types.js';
import { packParameter } from '../../src/kernels/packing.js';
import { card, checkOp, noise, roundedTo, sharedGpu, TOO_SMALL, tuned } from '../check_op.js';
import { depthwise, k1, shapeOf } from './conv2d_shapes.js';
import { emulated, NO_F16, NO_UNITS, truncated, withUnits } from './matrix_units.js';

/** For variants of one group. */
const DENSE_SHAPES: Conv2dShape[] = [
  shapeOf(1, 1, 1, 1, 1),
  shapeOf(1, 1, 1, 5, 3, k1),
  shapeOf(1, 3, 5, 2, 7),
  shapeOf(2, 5, 3, 3, 10, { padding: 0 }),
  shapeOf(1, 7, 7, 3, 32, { stride: 2 }),
  shapeOf(5, 7, 13, 10, 16, { padding: 0 }),
  shapeOf(1, 13, 13, 28, 48, { padding: 0 }),
  shapeOf(2, 13, 7, 7, 5, { padding: 3, dilation: 2 }),
  shapeOf(1, 13, 13, 48, 64, { kernelHeight: 2, kernelWidth: 2, padding: 0 }),
  shapeOf(2, 7, 7, 64, 64, { stride: 2 }),
  shapeOf(1, 7, 7, 64, 128, k1),
  shapeOf(1, 13, 7, 10, 2, k1),
  shapeOf(1, 5, 5, 32, 7, { ...k1, stride: 2 }),
  // So many tiles that a workgroup takes several, the last fewer, in lanes without channels too.
  shapeOf(1, 31, 41, 5, 36),
  shapeOf(1, 47, 43, 6, 34, k1),
  // Dense layers: the filter covers the map.
  shapeOf(1, 3, 3, 64, 128, { padding: 0 }),
  shapeOf(5, 1, 1, 130, 10, k1),
  shapeOf(3, 7, 7, 64, 66, { kernelHeight: 7, kernelWidth: 7, padding: 0 }),
  shapeOf(1, 4, 6, 128, 352, { kernelHeight: 4, kernelWidth: 6, padding: 0 }),
];

const DEPTHWISE_SHAPES: Conv2dShape[] = [
  depthwise(1, 1, 1, 2),
  depthwise(1, 3, 5, 3),
  depthwise(2, 7, 7, 10, { stride: 2 }),
  depthwise(1, 13, 13, 64),
  depthwise(1, 13, 7, 32, { stride: 2, padding: 0 }),
  depthwise(5, 7, 7, 28, { kernelHeight: 7, kernelWidth: 7, padding: 0 }),
  depthwise(1, 7, 6, 64, { kernelHeight: 7, kernelWidth: 6, padding: 0 }),
  depthwise(1, 13, 13, 7, { dilation: 2, padding: 3 }),
];

const GROUPED_SHAPES: Conv2dShape[] = [
  shapeOf(1, 5, 5, 128, 128, { groups: 64 }),
  shapeOf(2, 3, 7, 6, 10, { groups: 2, stride: 2 }),
  shapeOf(1, 7, 5, 9, 3, { groups: 3, padding: 0 }),
];

/** 3×3 at stride 1: odd sizes leave half tiles at the border. */
const WINOGRAD_SHAPES: Conv2dShape[] = [
  shapeOf(1, 1, 1, 1, 1),
  shapeOf(1, 3, 5, 3, 10),
  shapeOf(2, 5, 3, 7, 5, { padding: 0 }),
  shapeOf(3, 7, 7, 10, 33),
  shapeOf(1, 4, 6, 64, 64, { padding: 2 }),
  shapeOf(2, 9, 7, 32, 36),
];

/** Filters up to three wide at stride 1: runs that end with the row, before and after it. */
const RUNS_SHAPES: Conv2dShape[] = [
  shapeOf(1, 5, 5, 10, 16, { padding: 0 }),
  shapeOf(2, 7, 13, 7, 48),
  shapeOf(3, 4, 4, 28, 20, { kernelHeight: 2, kernelWidth: 2, padding: 0 }),
  shapeOf(1, 3, 19, 4, 9, { kernelHeight: 1, kernelWidth: 3, padding: 1 }),
];

/** A few outputs of single pixels; the third has more tiles than one workgroup takes. */
const NARROW_SHAPES: Conv2dShape[] = [
  shapeOf(1, 1, 1, 1, 1, k1),
  shapeOf(2, 5, 7, 32, 2, k1),
  shapeOf(1, 41, 31, 20, 4, k1),
  shapeOf(5, 1, 1, 130, 10, k1),
];

/** Several tiles of any side, none at the border full; sums that end in the middle of a step, the second in parts. */
const TILE_CASES: [Conv2dShape, number][] = [
  [shapeOf(3, 9, 7, 29, 134), 1],
  [shapeOf(3, 9, 7, 261, 134, k1), 1000],
];

interface Case {
  storage: FloatType;
  bias: boolean;
  activation: Activation;
  residual: boolean;
}

const EPILOGUES: Case[] = [
  { storage: 'f32', bias: false, activation: 'none', residual: false },
  { storage: 'f32', bias: true, activation: 'relu', residual: false },
  { storage: 'f32', bias: true, activation: 'prelu', residual: true },
  { storage: 'f16', bias: true, activation: 'prelu', residual: false },
  { storage: 'f16', bias: true, activation: 'none', residual: true },
];

const describeShape = (s: Conv2dShape): string =>
  `[${s.batch},${s.inHeight},${s.inWidth},${s.inChannels}]→${s.outChannels} ${s.kernelHeight}×${s.kernelWidth} s${s.stride} p${s.padding} d${s.dilation} g${s.groups}`;

/** Of every kind of DENSE_SHAPES one. */
const EMULATED_SHAPES = [0, 7, 9, 10, 13, 17].map((i) => DENSE_SHAPES[i]);

/** Conv, bias, activation and residual by definition; and the magnitudes that bound the rounding error. */
function reference(s: Conv2dShape, c: Case, x: Float32Array, w: Float32Array, extra: Extra) {
  const abs = (a?: Float32Array) => a?.map(Math.abs);
  const expected = conv2dReference(s, x, w, extra.bias);
  const magnitude = conv2dReference(s, abs(x)!, abs(w)!, abs(extra.bias));
  for (let i = 0; i < expected.length; i++) {
    const o = i % s.outChannels;
    if (expected[i] < 0) {
      if (c.activation === 'relu') expected[i] = 0;
      if (c.activation === 'prelu') expected[i] *= extra.slope![o];
    }
    if (extra.residual) {
      expected[i] += extra.residual[i];
      magnitude[i] += Math.abs(extra.residual[i]);
    }
  }
  return { expected, magnitude };
}

interface Extra {
  bias?: Float32Array;
  slope?: Float32Array;
  residual?: Float32Array;
}

interface CheckOptions {
  traits?: DeviceTraits;
  /** Small whole numbers that every variant and storage type computes without rounding. */
  whole?: boolean;
  /** x·scale + shift before the convolution. */
  affine?: boolean;
  /** Who multiplies where the plan is `matrix`. */
  units?: 'own' | 'emulated';
  /** Rounding steps to allow for instead of checkOp's. */
  steps?: number;
}

async function check(s: Conv2dShape, c: Case, plan: Conv2dPlan, options: CheckOptions = {}): Promise<void> {
  const { traits, whole, steps, units } = options;
  const gpu = await sharedGpu(units === 'own' ? { matrixUnits: true } : {});
  /** Multiples of `unit` from −2 to 2 times it, or any numbers. */
  const some = (n: number, seed: number, unit = 1) =>
    whole ? noise(n, seed).map((v) => unit * Math.round(2 * v)) : noise(n, seed);
  const ohwi = [s.outChannels, s.inChannels / s.groups, s.kernelHeight, s.kernelWidth];
  const raw = some(
    ohwi.reduce((a, b) => a * b, 1),
    2,
    4,
  );
  const layout = s.groups === 1 ? 'conv' : s.groups === s.inChannels ? 'depthwise' : 'grouped';
  // Whatever the storage, matrix units are given halves.
  const operands = plan.variant === 'matrix' ? 'f16' : c.storage;
  const wide = plan.variant !== 'matrix' && (plan.packing === 'f32' || plan.packing === 'winograd');
  const w = roundedTo(wide ? 'f32' : 'f16', raw);
  const xShape = [s.batch, s.inHeight, s.inWidth, s.inChannels];
  const yShape = [s.batch, s.outHeight, s.outWidth, s.outChannels];
  const size = (shape: number[]) => shape.reduce((a, b) => a * b, 1);
  const x = roundedTo(operands, some(size(xShape), 3));
  const extra: Extra = {
    bias: c.bias ? some(s.outChannels, 4) : undefined,
    slope: c.activation === 'prelu' ? some(s.outChannels, 5) : undefined,
    residual: c.residual ? roundedTo(c.storage, some(size(yShape), 6)) : undefined,
  };
  const affine = !options.affine ? undefined : { scale: some(s.inChannels, 7), shift: some(s.inChannels, 8) };
  const seen = affine
    ? x.map((v, i) => v * affine.scale[i % s.inChannels] + affine.shift[i % s.inChannels])
    : x;
  await checkOp(gpu, (buffers) => {
    const y = buffers.output(yShape, c.storage);
    const calls = conv2dForward(
      {
        shape: s,
        x: buffers.operand(x, xShape, c.storage),
        weight: buffers.bytes(packParameter(w, ohwi, layout, plan.packing)),
        bias: extra.bias && buffers.vector(extra.bias),
        slope: extra.slope && buffers.vector(extra.slope),
        activation: c.activation,
        inputAffine: affine && { scale: buffers.vector(affine.scale), shift: buffers.vector(affine.shift) },
        residual: extra.residual && buffers.operand(extra.residual, yShape, c.storage),
        y,
        temporary: (shape, dtype) => buffers.output(shape, dtype),
      },
      plan,
      traits ?? gpu.traits,
    );
    const name = `${calls.map((k) => k.label).join(' + ')} ${describeShape(s)} ${JSON.stringify(c)}`;
    return {
      calls: units === 'emulated' ? calls.map(emulated) : calls,
      outputs: [
        { name, shape: yShape, dtype: c.storage, operand: y, steps, ...reference(s, c, seen, w, extra) },
      ],
    };
  });
}

describe('conv2d forward', () => {
  it.each(DENSE_SHAPES.map((s) => [describeShape(s), s] as const))(
    'planned for this device: %s',
    async (_, s) => {
      const { traits } = await sharedGpu();
      for (const c of EPILOGUES) {
        for (const precision of ['f32', 'f16'] as const) {
          for (const fixedWeights of [false, true])
            await check(s, c, planConv2d(s, traits, { precision, fixedWeights }));
        }
      }
    },
  );

  // A software adapter compiles a card's kernel, all barriers, for seconds.
  it.each(DENSE_SHAPES.map((s) => [describeShape(s), s] as const))(
    'planned for a card: %s',
    async (_, s) => {
      const traits = card((await sharedGpu()).traits);
      for (const c of EPILOGUES) {
        for (const precision of ['f32', 'f16'] as const)
          await check(s, c, planConv2d(s, traits, { precision }), { traits });
      }
    },
    300_000,
  );

  // What is planned untuned, 64, is tested above. The largest compiles for a quarter of a minute.
  it.for(
    TILE_SIDES.filter((side) => side !== 64).flatMap((side) =>
      (side === 128 ? TILE_CASES.slice(0, 1) : TILE_CASES).map(
        ([s, workgroups]) => [side, describeShape(s), workgroups, s] as const,
      ),
    ),
  )(
    'in tiles of %i: %s for %i workgroups',
    { timeout: 300_000 },
    async ([side, , workgroups, s], context) => {
      const traits = tuned((await sharedGpu()).traits, side, workgroups);
      context.skip(!isAllowed(TILES[side], traits), TOO_SMALL);
      const plan = planConv2d(s, traits);
      expect(plan.tile.side).toBe(side);
      expect(plan.tile.splits > 1).toBe(workgroups > 1);
      await check(s, EPILOGUES[2], plan, { traits });
    },
  );

  it('is planned by the tuning of a card', async () => {
    const { traits } = await sharedGpu();
    const roomy = { ...card(traits), maxInvocations: 256, maxWorkgroupBytes: 32768 };
    const plan = (s: Conv2dShape, side: TileSide, workgroups: number, t: DeviceTraits = roomy) =>
      planConv2d(s, tuned(t, side, workgroups)).tile;
    // Of 128×128 it has 392.
    const large = shapeOf(16, 56, 56, 64, 128);
    expect(planConv2d(large, roomy).tile).toEqual(plan(large, 64, 128));
    expect(plan(large, 128, 392)).toMatchObject({ side: 128, splits: 1 });
    expect(plan(large, 128, 393)).toMatchObject({ side: 64, splits: 1 });
    expect(plan(large, 32, 128)).toMatchObject({ side: 32, splits: 1 });
    expect(plan(shapeOf(16, 56, 56, 64, 64), 128, 1).side).toBe(64);
    expect(plan(large, 128, 128, { ...roomy, maxWorkgroupBytes: 16384 }).side).toBe(64);
    expect(plan(large, 128, 128, { ...roomy, maxInvocations: 128 }).side).toBe(64);
    // Of 64×64 it has 8.
    const small = shapeOf(1, 7, 7, 512, 512);
    expect(planConv2d(small, roomy).tile.splits).toBe(32);
    expect(plan(small, 64, 16).splits).toBe(4);
    expect(plan(small, 64, 8).splits).toBe(1);
    const units = { ...withUnits(traits), maxWorkgroupBytes: 65536 };
    const halves = (workgroups: number) =>
      planConv2d(large, tuned(units, 64, workgroups), { precision: 'f16' }).tile.side;
    expect([halves(392), halves(393)]).toEqual([128, 64]);
  });

  /** Every tile, exactly with whole numbers, and any numbers. */
  const checkUnits = async (s: Conv2dShape, c: Case, traits: DeviceTraits, units: 'own' | 'emulated') => {
    for (const side of [64, 128]) {
      const depth = s.kernelHeight * s.kernelWidth * Math.ceil(s.inChannels / 4) * 4;
      const tile = { ...splitTile(1, 1, depth, tileOf(side, traits.subgroupMatrix!), 128, 128) };
      const plan: Conv2dPlan = { variant: 'matrix', packing: 'f16', tile };
      await check(s, c, plan, { traits, units, whole: true });
      const steps = truncated(s.kernelHeight * s.kernelWidth * s.inChannels);
      await check(s, c, plan, { traits, units, steps });
    }
  };

  // A software adapter compiles each of them for seconds.
  it.for(EMULATED_SHAPES.map((s) => [describeShape(s), s] as const))(
    'by matrix units, emulated: %s',
    { timeout: 300_000 },
    async ([, s], context) => {
      const { traits } = await sharedGpu();
      context.skip(!traits.shaderF16, NO_F16);
      for (const c of EPILOGUES.slice(2, 4)) await checkUnits(s, c, withUnits(traits), 'emulated');
    },
  );

  it.for(DENSE_SHAPES.map((s) => [describeShape(s), s] as const))(
    "by the device's own matrix units: %s",
    { timeout: 300_000 },
    async ([, s], context) => {
      const { traits } = await sharedGpu({ matrixUnits: true });
      context.skip(!traits.subgroupMatrix, NO_UNITS);
      for (const c of EPILOGUES) await checkUnits(s, c, traits, 'own');
    },
  );

  it.each(DENSE_SHAPES.map((s) => [describeShape(s), s] as const))('direct: %s', async (_, s) => {
    for (const c of EPILOGUES) await check(s, c, { variant: 'direct', packing: 'f32', tile: {} });
  });

  it.each(DEPTHWISE_SHAPES.map((s) => [describeShape(s), s] as const))('depthwise: %s', async (_, s) => {
    const { traits } = await sharedGpu();
    for (const c of EPILOGUES) {
      for (const t of [traits, card(traits)]) await check(s, c, planConv2d(s, t), { traits: t });
    }
  });

  it.each(GROUPED_SHAPES.map((s) => [describeShape(s), s] as const))('grouped: %s', async (_, s) => {
    const { traits } = await sharedGpu();
    for (const c of EPILOGUES) await check(s, c, planConv2d(s, traits));
  });

  it.each([
    ...RUNS_SHAPES.map((s) => ['runs', describeShape(s), s] as const),
    ...NARROW_SHAPES.map((s) => ['narrow', describeShape(s), s] as const),
  ])('%s: %s', async (variant, _, s) => {
    // Both are planned for sixteen lanes at most; of a wider subgroup so many take part.
    const lanes = Math.min((await sharedGpu()).traits.subgroupSize || 8, 16);
    for (const c of EPILOGUES) {
      for (const run of variant === 'runs' ? [3, 9] : [0])
        await check(s, c, { variant, packing: 'f32', tile: { lanes, run } });
    }
  });

  it.each(WINOGRAD_SHAPES.map((s) => [describeShape(s), s] as const))('winograd: %s', async (_, s) => {
    const { traits } = await sharedGpu();
    const lanes = traits.subgroupSize || 8;
    for (const c of EPILOGUES) {
      for (const [width, blocks] of [
        [4, 4],
        [2, 1],
      ]) {
        // The second in chunks of a few tiles.
        const tile = { lanes, width, blocks, chunk: blocks === 1 ? 20_000 : 2 ** 23 };
        // Exact in halves too: with whole numbers the transforms, products and sums are whole and small.
        const optionalResidual = true;
        await check(
          s,
          c,
          { variant: 'winograd', packing: 'winogradf16', tile, optionalResidual },
          { whole: true },
        );
        await check(s, c, { variant: 'winograd', packing: 'winograd', tile }, { whole: true, affine: true });
        // Each output is made of nine products of sums of four inputs and up to nine weights.
        if (c.storage === 'f32')
          await check(s, c, { variant: 'winograd', packing: 'winograd', tile }, { steps: 36 });
      }
    }
  });

  it('takes matrix units only for f16 and where they have enough to do', async () => {
    const traits = withUnits((await sharedGpu()).traits);
    const s = shapeOf(8, 28, 28, 64, 64);
    expect(planConv2d(s, traits, { precision: 'f16' })).toMatchObject({
      variant: 'matrix',
      tile: { side: 64, m: 16 },
    });
    expect(planConv2d(s, traits).variant).toBe('tiled');
    expect(planConv2d(shapeOf(64, 28, 28, 64, 128), traits, { precision: 'f16' }).tile.side).toBe(128);
    expect(planConv2d(shapeOf(1, 2, 2, 64, 64), traits, { precision: 'f16' }).variant).toBe('direct');
    expect(planConv2d(s, { ...traits, subgroupMatrix: undefined }, { precision: 'f16' }).variant).toBe(
      'tiled',
    );
  });

  it('takes Winograd only for weights that stay as they are', async () => {
    const { traits } = await sharedGpu();
    const s = shapeOf(1, 14, 14, 64, 64);
    expect(planConv2d(s, traits).variant).not.toBe('winograd');
    if (traits.kind === 'cpu' && traits.subgroupSize > 0)
      expect(planConv2d(s, traits, { fixedWeights: true }).variant).toBe('winograd');
    expect(
      planConv2d(shapeOf(1, 14, 14, 64, 64, { stride: 2 }), traits, { fixedWeights: true }).variant,
    ).not.toBe('winograd');
  });

  it('has a reference that agrees with TensorFlow.js', async () => {
    await tf.setBackend('cpu');
    for (const s of [DENSE_SHAPES[4], DENSE_SHAPES[5], DENSE_SHAPES[8], DENSE_SHAPES[9], DENSE_SHAPES[12]]) {
      const x = noise(s.batch * s.inHeight * s.inWidth * s.inChannels, 3);
      const w = noise(s.outChannels * s.inChannels * s.kernelHeight * s.kernelWidth, 2);
      const y = tf.conv2d(
        tf.tensor4d(x, [s.batch, s.inHeight, s.inWidth, s.inChannels]),
        tf.transpose(
          tf.tensor4d(w, [s.outChannels, s.inChannels, s.kernelHeight, s.kernelWidth]),
          [2, 3, 1, 0],
        ),
        s.stride,
        s.padding,
        'NHWC',
        s.dilation,
      );
      const want = await y.data();
      const got = conv2dReference(s, x, w);
      expect(got.length).toBe(want.length);
      got.forEach((v, i) => {
        expect(Math.abs(v - want[i])).toBeLessThan(1e-4);
      });
    }
    for (const s of [DEPTHWISE_SHAPES[3], DEPTHWISE_SHAPES[4]]) {
      const x = noise(s.batch * s.inHeight * s.inWidth * s.inChannels, 3);
      const w = noise(s.outChannels * s.kernelHeight * s.kernelWidth, 2);
      const filter = tf.transpose(
        tf.tensor4d(w, [s.inChannels, 1, s.kernelHeight, s.kernelWidth]),
        [2, 3, 0, 1],
      );
      const y = tf.depthwiseConv2d(
        tf.tensor4d(x, [s.batch, s.inHeight, s.inWidth, s.inChannels]),
        filter as tf.Tensor4D,
        s.stride,
        s.padding,
      );
      const want = await y.data();
      conv2dReference(s, x, w).forEach((v, i) => {
        expect(Math.abs(v - want[i])).toBeLessThan(1e-4);
      });
    }
  });
});
