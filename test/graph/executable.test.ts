import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import type { DeviceTraits } from '../../src/gpu/traits.js';
import { compile } from '../../src/graph/executable.js';
import { fuse } from '../../src/graph/fuse.js';
import { Graph, type Tensor } from '../../src/graph/graph.js';
import { Model } from '../../src/graph/model.js';
import { ParameterStore, type ParameterValue } from '../../src/graph/parameters.js';
import { card, sharedGpu } from '../check_op.js';
import { evaluate } from './evaluate.js';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openGpu();
});
afterAll(() => gpu.close());

/** Values in a range where every op matters: weights around zero, variances positive. */
function fill(graph: Graph): Map<string, ParameterValue> {
  const values = new Map<string, ParameterValue>();
  let phase = 0;
  for (const node of graph.nodes) {
    if (node.op !== 'parameter') continue;
    const data = new Float32Array(node.shape.reduce((a, b) => a * b, 1));
    const positive = node.name!.endsWith('var');
    for (let i = 0; i < data.length; i++)
      data[i] = positive ? 0.5 + 0.4 * Math.sin(phase++) : 0.4 * Math.sin(1.7 * phase++);
    values.set(node.name!, { shape: node.shape, data });
  }
  return values;
}

const signal = (length: number, step = 0.37) =>
  Float32Array.from({ length }, (_, i) => Math.sin(step * i) + 0.2 * Math.cos(0.11 * i * i));

function norm(g: Graph, name: string, x: Tensor): Tensor {
  const c = x.shape[x.shape.length - 1];
  const p = (part: string) => g.parameter(`${name}.${part}`, [c], 'vector');
  return g.batchNorm(x, { weight: p('weight'), bias: p('bias'), mean: p('mean'), variance: p('var') });
}

/** A net with every fusion the passes know and some that must not happen. */
function build([n, h, w, c]: readonly number[]): Graph {
  const g = new Graph('small');
  const x = g.input('x', [n, h, w, c]);
  const w1 = g.parameter('c1.weight', [10, c, 3, 3], 'conv');
  let y = g.conv2d(x, w1, { bias: g.parameter('c1.bias', [10], 'vector'), padding: 1 });
  y = g.prelu(norm(g, 'bn1', y), g.parameter('p1', [10], 'vector'));
  let z = g.conv2d(norm(g, 'bn0', y), g.parameter('c2.weight', [10, 10, 3, 3], 'conv'), { padding: 1 });
  z = g.add2(norm(g, 'bn2', z), y);
  const pooled = g.maxPool(z, { kernel: 3, stride: 2, ceil: true });
  const dw = g.conv2d(pooled, g.parameter('dw.weight', [10, 1, 3, 3], 'depthwise'), {
    padding: 1,
    groups: 10,
  });
  const act = g.relu(norm(g, 'bn3', dw));
  const [, ph, pw] = act.shape;
  const flat = { order: 'chw' as const, map: [ph, pw, 10] };
  const logits = g.dense(
    act,
    g.parameter('fc.weight', [7, ph * pw * 10], 'dense', flat),
    g.parameter('fc.bias', [7], 'vector'),
  );
  g.output('prob', g.softmax(logits));
  g.output('embedding', g.l2Normalize(logits));
  g.output('map', z);
  return g;
}

describe('compile', () => {
  it.each([
    [1, 9, 7, 3],
    [3, 12, 11, 5],
  ])('agrees with the definitions in f64, fused and unfused: %i×%i×%i×%i', async (...shape) => {
    const graph = build(shape);
    const values = fill(graph);
    const input = signal(shape.reduce((a, b) => a * b, 1));
    const expected = evaluate(graph, { x: input }, values);
    for (const fused of [true, false]) {
      const store = new ParameterStore(gpu, values);
      const exe = await compile(gpu, graph, store, values, { fuse: fused });
      const got = await exe.run({ x: input });
      for (const name of ['prob', 'embedding', 'map']) {
        const worst = Math.max(...expected[name].map((v, i) => Math.abs(v - got[name][i])));
        expect(got[name].length).toBe(expected[name].length);
        expect(worst, `${name}, fused ${fused}`).toBeLessThan(2e-5);
      }
      exe.destroy();
      store.destroy();
    }
  });

  it('agrees where 3×3 convolutions are wide enough for Winograd, batch norm before them', async () => {
    const g = new Graph('wide');
    const x = g.input('x', [2, 9, 6, 36]);
    const weight = (name: string) => g.parameter(name, [36, 36, 3, 3], 'conv');
    let y = g.conv2d(norm(g, 'bn1', x), weight('c1.weight'), { padding: 1 });
    y = g.prelu(norm(g, 'bn2', y), g.parameter('p1', [36], 'vector'));
    g.output('y', g.add2(norm(g, 'bn3', g.conv2d(y, weight('c2.weight'), { padding: 1 })), x));
    const values = fill(g);
    const input = signal(2 * 9 * 6 * 36);
    const expected = evaluate(g, { x: input }, values).y;
    const scale = Math.max(...expected.map(Math.abs));
    for (const precision of ['f32', 'f16'] as const) {
      const store = new ParameterStore(gpu, values);
      const exe = await compile(gpu, g, store, values, { precision });
      const { y: got } = await exe.run({ x: input });
      const worst = Math.max(...expected.map((v, i) => Math.abs(v - got[i])));
      expect(worst, precision).toBeLessThan(scale * (precision === 'f32' ? 2e-6 : 2e-3));
      exe.destroy();
      store.destroy();
    }
  });

  it('agrees where one tensor is used twice in an op, or is input and residual', async () => {
    const g = new Graph('twice');
    const x = g.input('x', [2, 5, 6, 6]);
    const weight = (name: string) => g.parameter(name, [6, 6, 3, 3], 'conv');
    g.output('square', g.mul(x, x));
    g.output('double', g.add2(x, x));
    g.output('residual', g.add2(g.conv2d(x, weight('c1.weight'), { padding: 1 }), x));
    const z = g.relu(x);
    g.output('normed', g.add2(z, g.conv2d(norm(g, 'bn', z), weight('c2.weight'), { padding: 1 })));
    const values = fill(g);
    const input = signal(360);
    const expected = evaluate(g, { x: input }, values);
    for (const fused of [true, false]) {
      const store = new ParameterStore(gpu, values);
      const exe = await compile(gpu, g, store, values, { fuse: fused });
      const got = await exe.run({ x: input });
      for (const name of ['square', 'double', 'residual', 'normed'])
        expect(Math.max(...expected[name].map((v, i) => Math.abs(v - got[name][i]))), name).toBeLessThan(
          5e-6,
        );
      exe.destroy();
      store.destroy();
    }
  });

  it.each([
    [2, true],
    [3, true],
    [3, false],
  ])('agrees for a first layer with PReLU and pooling %i/2, on any device', async (kernel, ceil) => {
    const g = new Graph('first');
    const x = g.input('x', [2, 13, 10, 3]);
    const conv = g.conv2d(x, g.parameter('c.weight', [6, 3, 3, 3], 'conv'), {
      bias: g.parameter('c.bias', [6], 'vector'),
    });
    g.output('y', g.maxPool(g.prelu(conv, g.parameter('p', [6], 'vector')), { kernel, stride: 2, ceil }));
    const values = fill(g);
    const ops = fuse(g, values).graph.nodes.map((n) => n.op);
    expect(ops.filter((op) => op !== 'parameter')).toEqual(['input', 'conv2d']);
    const input = signal(2 * 13 * 10 * 3);
    const expected = evaluate(g, { x: input }, values).y;
    for (const device of [gpu, await sharedGpu({ minimal: true })]) {
      const store = new ParameterStore(device, values);
      const exe = await compile(device, g, store, values);
      const { y } = await exe.run({ x: input });
      expect(y.length).toBe(expected.length);
      expect(Math.max(...expected.map((v, i) => Math.abs(v - y[i])))).toBeLessThan(2e-5);
      exe.destroy();
      store.destroy();
    }
  });

  it('agrees for the softmax of a few outputs, on any device', async () => {
    const g = new Graph('heads');
    const x = g.input('x', [2, 5, 3, 10]);
    const head = (name: string, outputs: number) =>
      g.softmax(
        g.conv2d(x, g.parameter(`${name}.weight`, [outputs, 10, 1, 1], 'conv'), {
          bias: g.parameter(`${name}.bias`, [outputs], 'vector'),
        }),
      );
    g.output('two', head('two', 2));
    g.output('three', head('three', 3));
    g.output('five', head('five', 5));
    const values = fill(g);
    const ops = fuse(g, values).graph.nodes.map((n) => n.op);
    expect(ops.filter((op) => op === 'softmax')).toHaveLength(1);
    const input = signal(300);
    const expected = evaluate(g, { x: input }, values);
    for (const device of [gpu, await sharedGpu({ minimal: true })]) {
      const store = new ParameterStore(device, values);
      const exe = await compile(device, g, store, values);
      const got = await exe.run({ x: input });
      for (const name of ['two', 'three', 'five']) {
        expect(got[name].length).toBe(expected[name].length);
        expect(Math.max(...expected[name].map((v, i) => Math.abs(v - got[name][i])))).toBeLessThan(2e-6);
      }
      exe.destroy();
      store.destroy();
    }
  });

  it('agrees where depthwise filters follow 1×1 layers, on any device', async () => {
    const g = new Graph('blocks');
    const layer = (
      name: string,
      x: Tensor,
      outputs: number,
      groups = 1,
      stride = 1,
      act?: 'prelu' | 'relu',
    ) => {
      const [side, inputs] = groups > 1 ? [3, 1] : [1, x.shape[3]];
      const layout = groups > 1 ? 'depthwise' : 'conv';
      const weight = g.parameter(`${name}.weight`, [outputs, inputs, side, side], layout);
      const y = norm(g, `${name}.bn`, g.conv2d(x, weight, { stride, padding: side >> 1, groups }));
      if (act === 'relu') return g.relu(y);
      return act ? g.prelu(y, g.parameter(`${name}.slope`, [outputs], 'vector')) : y;
    };
    const x = layer('alone', g.input('x', [2, 9, 7, 33]), 33, 33, 1, 'prelu');
    const narrowed = layer('c', layer('b', layer('a', x, 40, 1, 1, 'prelu'), 40, 40, 2, 'prelu'), 35);
    const filtered = layer('e', layer('d', narrowed, 36, 1, 1, 'prelu'), 36, 36);
    const z = g.add2(layer('f', filtered, 35), narrowed);
    // None of these is a pair: the map between is wanted, added to, or went through a ReLU.
    const wanted = layer('h', z, 40, 1, 1, 'prelu');
    g.output('wanted', wanted);
    g.output('after', layer('i', wanted, 40, 40, 1, 'prelu'));
    g.output('relu', layer('k', layer('j', z, 40, 1, 1, 'relu'), 40, 40, 1, 'prelu'));
    g.output('added', g.add2(layer('m', layer('l', z, 35, 1, 1, 'prelu'), 35, 35), z));
    const pooled = g.globalAvgPool(z);
    g.output(
      'dense',
      g.dense(pooled, g.parameter('fc.weight', [33, 35], 'dense'), g.parameter('fc.bias', [33], 'vector')),
    );
    const values = fill(g);
    const software = { ...gpu.traits, kind: 'cpu', subgroups: true, subgroupSize: 8 } as const;
    /** By the names of their filters, folded. */
    const pairs = (traits?: DeviceTraits) => {
      const { graph } = fuse(g, values, traits);
      const nodes = graph.nodes.filter((n) => n.op === 'expandDepthwise');
      return nodes.map((n) => graph.node(n.inputs[4]).name!.split('.')[0]);
    };
    expect(pairs(software)).toEqual(['b', 'e']);
    expect(pairs(card(gpu.traits))).toEqual([]);
    expect(pairs()).toEqual([]);
    const input = signal(2 * 9 * 7 * 33);
    const expected = evaluate(g, { x: input }, values);
    for (const [device, precision, share] of [
      [gpu, 'f32', 2e-6],
      [gpu, 'f16', 4e-3],
      [await sharedGpu({ minimal: true }), 'f32', 2e-6],
    ] as const) {
      const store = new ParameterStore(device, values);
      const exe = await compile(device, g, store, values, { precision });
      const got = await exe.run({ x: input });
      for (const name of Object.keys(expected)) {
        const scale = Math.max(...expected[name].map(Math.abs));
        const worst = Math.max(...expected[name].map((v, i) => Math.abs(v - got[name][i])));
        expect(worst, `${name}, ${precision}`).toBeLessThan(share * scale);
      }
      exe.destroy();
      store.destroy();
    }
  });

  it('agrees for a dense layer over a 3×3 map, which is a 3×3 convolution but no filter', async () => {
    const g = new Graph('dense');
    const x = g.input('x', [2, 3, 3, 64]);
    const flat = { order: 'chw' as const, map: [3, 3, 64] };
    g.output(
      'y',
      g.dense(x, g.parameter('fc.weight', [40, 576], 'dense', flat), g.parameter('fc.bias', [40], 'vector')),
    );
    const values = fill(g);
    const input = signal(2 * 576);
    const expected = evaluate(g, { x: input }, values).y;
    const store = new ParameterStore(gpu, values);
    const exe = await compile(gpu, g, store, values);
    const { y } = await exe.run({ x: input });
    expect(Math.max(...expected.map((v, i) => Math.abs(v - y[i])))).toBeLessThan(2e-5);
    exe.destroy();
    store.destroy();
  });

  it('with f16 storage stays within half precision of f64', async () => {
    const graph = build([2, 10, 10, 3]);
    const values = fill(graph);
    const input = signal(600);
    const expected = evaluate(graph, { x: input }, values);
    const store = new ParameterStore(gpu, values);
    const exe = await compile(gpu, graph, store, values, { precision: 'f16' });
    const { embedding } = await exe.run({ x: input }, ['embedding']);
    // Eight layers of storage rounding at 2^-11 each, relative to a unit vector.
    expect(Math.max(...expected.embedding.map((v, i) => Math.abs(v - embedding[i])))).toBeLessThan(
      8 * 2 ** -10,
    );
    exe.destroy();
    store.destroy();
  });

  it('fuses what it should: one node for conv, norm, activation and residual', () => {
    const graph = build([1, 9, 9, 3]);
    const { graph: fused } = fuse(graph, fill(graph));
    const ops = fused.nodes.map((n) => n.op).filter((op) => op !== 'parameter' && op !== 'input');
    // bn0 stands before a padded convolution: no weight can hold it, the convolution maps its input.
    expect(fused.nodes.filter((n) => n.attributes.hasInputAffine)).toHaveLength(1);
    expect(ops).toEqual(['conv2d', 'conv2d', 'maxPool', 'conv2d', 'dense', 'softmax', 'l2Normalize']);
  });

  it('keeps buffers and bytes flat over 100 runs, and bounded over many sizes', async () => {
    const graphAt = (shape: readonly number[]) => build(shape);
    const values = fill(build([1, 8, 8, 3]));
    // Only sizes with the same pooled map fit the dense layer: vary the batch.
    const model = new Model(gpu, graphAt, values, { cachedSizes: 3 });
    const exe = await model.at([1, 8, 8, 3]);
    await exe.run({ x: signal(192) });
    const before = { ...gpu.stats };
    for (let i = 0; i < 100; i++) await exe.run({ x: signal(192) });
    expect(gpu.stats).toEqual(before);
    const seen: number[] = [];
    for (let n = 2; n < 12; n++) {
      await (await model.at([n, 8, 8, 3])).run({ x: signal(192 * n) });
      seen.push(gpu.stats.buffers);
    }
    expect(Math.max(...seen.slice(3))).toBeLessThanOrEqual(seen[2] + 1);
    await model.destroy();
    expect(gpu.stats.buffers).toBeLessThanOrEqual(before.buffers);
  });

  it('gives each run the results of its own input: one after the other, several at once, after a refused one', async () => {
    const model = new Model(gpu, build, fill(build([1, 12, 11, 3])));
    const executable = await model.at([1, 12, 11, 3]);
    const inputs = [0.1, 0.2, 0.3, 0.4].map((step) => signal(12 * 11 * 3, step));
    const alone: Record<string, Float32Array>[] = [];
    for (const x of inputs) alone.push(await executable.run({ x }));
    expect(alone[0]).not.toEqual(alone[1]);
    expect(await Promise.all(inputs.map((x) => executable.run({ x })))).toEqual(alone);
    await expect(executable.run({ x: inputs[0] }, ['nothing'])).rejects.toThrow('no output nothing');
    expect(await executable.run({ x: inputs[2] })).toEqual(alone[2]);
    model.destroy();
  });

  it('says which weight is missing or misshapen', async () => {
    const graph = build([1, 8, 8, 3]);
    const values = fill(graph);
    values.delete('fc.weight');
    await expect(compile(gpu, graph, new ParameterStore(gpu, values), values)).rejects.toThrow(
      /no fc\.weight/,
    );
    values.set('fc.weight', { shape: [7, 3], data: new Float32Array(21) });
    await expect(compile(gpu, graph, new ParameterStore(gpu, values), values)).rejects.toThrow(
      /fc\.weight has shape \[7,3\]/,
    );
  });

  it('refuses an op that only training runs', async () => {
    const graph = new Graph('scored');
    graph.output('loss', graph.softmaxCrossEntropy(graph.input('x', [2, 3]), graph.input('y', [2], 'u32')));
    await expect(compile(gpu, graph, new ParameterStore(gpu, new Map()), new Map())).rejects.toThrow(
      'scored holds softmaxCrossEntropy: only a training step can run it.',
    );
  });

  it('refuses an input of the wrong size, naming it', async () => {
    const graph = build([1, 8, 8, 3]);
    const values = fill(graph);
    const store = new ParameterStore(gpu, values);
    const exe = await compile(gpu, graph, store, values);
    await expect(exe.run({ x: new Float32Array(5) })).rejects.toThrow(/input x has 5 values/);
    await expect(exe.run({ y: new Float32Array(5) })).rejects.toThrow(/no input y; it has x/);
    exe.destroy();
    store.destroy();
  });
});

describe('building a graph', () => {
  it('refuses shapes that do not fit, saying which', () => {
    const g = new Graph('bad');
    const x = g.input('x', [1, 8, 8, 3]);
    expect(() => g.conv2d(x, g.parameter('w', [4, 5, 3, 3], 'conv'))).toThrow(/does not fit 3 channels/);
    expect(() => g.add2(x, g.input('y', [1, 8, 7, 3]))).toThrow(/\[1,8,8,3\] and \[1,8,7,3\] differ/);
    expect(() => g.maxPool(x, { kernel: 9, stride: 2 })).toThrow(/9×9 window does not fit a 8×8 map/);
  });
});
