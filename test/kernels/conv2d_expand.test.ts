import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import { conv2dExpand, takesExpand, takesPair } from '../../src/kernels/conv2d/expand.js';
import { conv2dReference } from '../../src/kernels/conv2d/reference.js';
import type { Conv2dShape } from '../../src/kernels/conv2d/types.js';
import { pack, packParameter } from '../../src/kernels/packing.js';
import { card, checkOp, noise, roundedTo, sharedGpu } from '../check_op.js';
import { depthwise, k1, shapeOf } from './conv2d_shapes.js';

/** A 1×1 layer's shape and that of the filter after it, either of which may be missing. */
type Pair = [first?: Conv2dShape, filter?: Conv2dShape];
const pair = (
  batch: number,
  [h, w]: [number, number],
  inputs: number,
  channels: number,
  rest: Partial<Conv2dShape> = {},
): Pair => [shapeOf(batch, h, w, inputs, channels, k1), depthwise(batch, h, w, channels, rest)];

/** Maps smaller than a tile of pixels, and of several; channels that fill their last lanes and that do not. */
const PAIRS: Pair[] = [
  pair(1, [1, 1], 1, 17),
  pair(2, [5, 3], 7, 36),
  pair(1, [9, 13], 12, 64, { stride: 2 }),
  pair(3, [7, 7], 20, 70, { padding: 0 }),
  pair(2, [8, 10], 5, 33, { stride: 2, padding: 0 }),
];
const ALONE: Pair[] = [
  [shapeOf(3, 7, 5, 10, 35, k1)],
  [shapeOf(5, 1, 1, 70, 64, k1)],
  [shapeOf(1, 40, 41, 3, 20, k1)],
  [undefined, depthwise(2, 7, 9, 35)],
  [undefined, depthwise(1, 8, 7, 64, { stride: 2 })],
];

const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const describePair = ([first, filter]: Pair) =>
  `${first ? `[${first.batch},${first.inHeight},${first.inWidth},${first.inChannels}]→${first.outChannels}` : ''}${filter ? ` 3×3 of [${filter.batch},${filter.inHeight},${filter.inWidth},${filter.inChannels}] s${filter.stride} p${filter.padding}` : ''}`;

interface Layer {
  weight: Float32Array;
  bias: Float32Array;
  slope: Float32Array;
}

/** By definition; and the magnitudes that bound its rounding errors, given those of its input. */
function reference(s: Conv2dShape, l: Layer, x: ArrayLike<number>, inputMagnitude: ArrayLike<number>) {
  const abs = (a: Float32Array) => a.map(Math.abs);
  const expected = conv2dReference(s, Float32Array.from(x), l.weight, l.bias);
  expected.forEach((v, i) => {
    if (v < 0) expected[i] = v * l.slope[i % s.outChannels];
  });
  return {
    expected,
    magnitude: conv2dReference(s, Float32Array.from(inputMagnitude), abs(l.weight), abs(l.bias)),
  };
}

async function check([first, filter]: Pair, storage: FloatType, withResidual: boolean): Promise<void> {
  const gpu = await sharedGpu();
  const shape = (filter ?? first)!;
  if (!takesExpand(shape, gpu.traits)) return;
  const { batch, outChannels: channels } = shape;
  const mapShape = first
    ? [batch, first.outHeight, first.outWidth, channels]
    : [batch, shape.inHeight, shape.inWidth, channels];
  const layer = (s: Conv2dShape, seed: number): Layer => {
    const weight = noise((s.outChannels * s.inChannels * s.kernelHeight * s.kernelWidth) / s.groups, seed);
    return {
      weight: s.groups > 1 ? weight : roundedTo(storage, weight),
      bias: noise(channels, seed + 1),
      slope: noise(channels, seed + 2),
    };
  };
  const [one, two] = [first && layer(first, 2), filter && layer(filter, 5)];
  const xShape = first && [batch, first.inHeight, first.inWidth, first.inChannels];
  const x = xShape && roundedTo(storage, noise(size(xShape), 8));
  const residual = withResidual && first ? roundedTo(storage, noise(size(mapShape), 9)) : undefined;
  let map: { expected: ArrayLike<number>; magnitude: ArrayLike<number> };
  if (first) {
    map = reference(first, one!, x!, x!.map(Math.abs));
    const { expected, magnitude } = map;
    map = {
      expected: Float64Array.from(expected, (v, i) => v + (residual?.[i] ?? 0)),
      magnitude: Float64Array.from(magnitude, (v, i) => v + Math.abs(residual?.[i] ?? 0)),
    };
  } else {
    const given = roundedTo(storage, noise(size(mapShape), 8));
    map = { expected: given, magnitude: given.map(Math.abs) };
  }
  // What the filter reads was rounded when it was stored: 2⁻¹¹ of a half beside the 8 · 2⁻²⁴ that an element may be off.
  const stored = Float64Array.from(
    map.magnitude,
    (v, i) => v + (storage === 'f16' && first ? 2 ** 10 * Math.abs(map.expected[i]) : 0),
  );
  await checkOp(gpu, (buffers) => {
    const vector = (v: Float32Array) => pack(v, [channels], 'vector').data;
    const vectors = (l: Layer) => [...vector(l.bias), ...vector(l.slope)];
    const taps = two && pack(two.weight, [channels, 1, 3, 3], 'depthwise').data;
    const rows = two ? [...taps!, ...vectors(two), ...vectors(one ?? two)] : vectors(one!);
    const packing = storage === 'f16' ? 'f16pairs' : 'f32';
    const weight = first
      ? packParameter(one!.weight, [channels, first.inChannels, 1, 1], 'conv', packing)
      : taps!;
    const ySize = filter && [batch, filter.outHeight, filter.outWidth, channels];
    const y = ySize && buffers.output(ySize, storage);
    const held = first
      ? buffers.output(mapShape, storage)
      : buffers.operand(Float32Array.from(map.expected), mapShape, storage);
    const calls = conv2dExpand(
      {
        shape,
        x: x && buffers.operand(x, xShape!, storage),
        residual: residual && buffers.operand(residual, mapShape, storage),
        map: held,
        y,
        weight: buffers.bytes(weight),
        rows: buffers.bytes(Float32Array.from(rows)),
      },
      { traits: gpu.traits, precision: storage, temporary: (s, d) => buffers.output(s, d) },
    );
    expect(calls).toHaveLength(1);
    const name = `${calls[0].label} ${describePair([first, filter])} ${storage}`;
    const outputs = [];
    if (first) outputs.push({ name: `${name}, map`, shape: mapShape, dtype: storage, operand: held, ...map });
    if (filter) {
      const wanted = reference(filter, two!, map.expected, stored);
      outputs.push({ name, shape: ySize!, dtype: storage, operand: y!, ...wanted });
    }
    return { calls, outputs };
  });
}

describe('1×1 layer and depthwise filter in one dispatch', () => {
  it.each([...PAIRS, ...ALONE].map((p) => [describePair(p), p] as const))('%s', async (_, p) => {
    for (const storage of ['f32', 'f16'] as const) {
      await check(p, storage, false);
      if (!p[1]) await check(p, storage, true);
    }
  });

  it('takes what fills lanes and leaves some workgroups, on software adapters only', async () => {
    const { traits } = await sharedGpu();
    const software = { ...traits, kind: 'cpu', subgroups: true, subgroupSize: 8 } as const;
    const takes = (p: Pair, t = software) => takesPair(p[0]!, p[1]!, t);
    expect(takes(pair(1, [14, 14], 128, 256))).toBe(true);
    expect(takes(pair(1, [56, 56], 64, 128, { stride: 2 }))).toBe(true);
    // Two workgroups, and with another picture four.
    expect(takes(pair(1, [14, 14], 64, 64))).toBe(false);
    expect(takes(pair(2, [14, 14], 64, 64))).toBe(true);
    expect(takes(pair(64, [14, 14], 8, 16))).toBe(false);
    for (const rest of [{ dilation: 2 }, { stride: 3 }, { kernelHeight: 5 }])
      expect(takes(pair(1, [14, 14], 128, 256, rest))).toBe(false);
    expect(takesPair(shapeOf(1, 14, 14, 64, 128), depthwise(1, 14, 14, 128), software)).toBe(false);
    const [first] = pair(1, [14, 14], 128, 128);
    expect(takesPair(first!, first!, software)).toBe(false);
    const [expansion, filter] = pair(1, [14, 14], 128, 256);
    expect(takesPair(expansion!, filter!, card(traits))).toBe(false);
  });
});
