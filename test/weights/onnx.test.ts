import * as ort from 'onnxruntime-web';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { compile } from '../../src/graph/executable.js';
import { Graph } from '../../src/graph/graph.js';
import { ParameterStore, type ParameterValues } from '../../src/graph/parameters.js';
import { initialize, seededRandom } from '../../src/nets/initialize.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { MBF, mobileFaceNet, PAPER } from '../../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../../src/nets/mtcnn.js';
import { recogniserOf } from '../../src/nets/registry.js';
import { type LoadedWeights, loadWeights } from '../../src/weights/load.node.js';
import type { WeightsMetadata } from '../../src/weights/metadata.js';
import { exportOnnx } from '../../src/weights/onnx/export.js';
import { readOnnx } from '../../src/weights/onnx/read.js';
import { readWeights } from '../../src/weights/read.js';

let gpu: Gpu;
beforeAll(async () => {
  ort.env.wasm.numThreads = 1;
  gpu = await openGpu();
});
afterAll(() => gpu.close());

/** [N, H, W, C] ↔ [N, C, H, W]. */
function channelsFirst(data: Float32Array, shape: readonly number[]): Float32Array {
  if (shape.length !== 4) return data;
  const [n, h, w, c] = shape;
  const out = new Float32Array(data.length);
  for (let i = 0; i < n; i++)
    for (let p = 0; p < h * w; p++)
      for (let k = 0; k < c; k++) out[(i * c + k) * h * w + p] = data[(i * h * w + p) * c + k];
  return out;
}

/** Largest difference between our executable and ONNX Runtime's WASM engine on our export, for each output. */
async function differences(graph: Graph, values: ParameterValues, seed = 1): Promise<Record<string, number>> {
  const random = seededRandom(seed);
  const input = graph.nodes.find((n) => n.op === 'input')!;
  const x = Float32Array.from({ length: input.shape.reduce((a, b) => a * b, 1) }, () => 2 * random() - 1);
  const store = new ParameterStore(gpu, values);
  const executable = await compile(gpu, graph, store, values);
  const ours = await executable.run({ [input.name!]: x });
  executable.destroy();
  store.destroy();
  const session = await ort.InferenceSession.create(exportOnnx(graph, values), {
    executionProviders: ['wasm'],
  });
  const s = input.shape;
  const dims = s.length === 4 ? [s[0], s[3], s[1], s[2]] : [...s];
  const theirs = await session.run({ [input.name!]: new ort.Tensor('float32', channelsFirst(x, s), dims) });
  await session.release();
  return Object.fromEntries(
    [...graph.outputs].map(([name, id]) => {
      const mine = channelsFirst(ours[name], graph.node(id).shape);
      // Values of random nets grow with depth: beyond one, the difference counts relative to the largest.
      const size = mine.reduce((most, v) => Math.max(most, Math.abs(v)), 1);
      const other = theirs[name].data as Float32Array;
      expect(other.length).toBe(mine.length);
      return [name, mine.reduce((worst, v, i) => Math.max(worst, Math.abs(v - other[i])), 0) / size];
    }),
  );
}

const expectClose = (found: Record<string, number>, tolerance = 1e-4) => {
  for (const [name, worst] of Object.entries(found)) expect(worst, name).toBeLessThan(tolerance);
};

describe('our export run by an independent engine', () => {
  it('agrees op by op', async () => {
    const g = new Graph('ops');
    const x = g.input('x', [2, 9, 8, 6]);
    const weight = g.parameter('w', [10, 6, 3, 3], 'conv');
    const conv = g.conv2d(x, weight, { bias: g.parameter('b', [10], 'vector'), padding: 2, dilation: 2 });
    const grouped = g.conv2d(x, g.parameter('gw', [4, 3, 3, 3], 'grouped'), {
      groups: 2,
      stride: 2,
      padding: 1,
    });
    g.output('conv', g.relu(conv));
    g.output('grouped', grouped);
    g.output('flip', g.flip(g.mul(g.prelu(x, g.parameter('p', [6], 'vector')), x)));
    g.output('max', g.maxPool(x, { kernel: 3, stride: 2, ceil: true }));
    g.output('average', g.avgPool(x, { kernel: 2, stride: 2 }));
    g.output('global', g.globalAvgPool(x));
    g.output('softmax', g.softmax(x));
    g.output('unit', g.l2Normalize(g.globalAvgPool(conv)));
    for (const order of ['chw', 'hwc', 'whc', 'cwh'] as const) {
      g.output(order, g.flatten(x, order));
      const flat = { order, map: [9, 8, 6] };
      g.output(`dense ${order}`, g.dense(x, g.parameter(`d ${order}`, [5, 432], 'dense', flat)));
    }
    expectClose(await differences(g, initialize(g, 3)), 2e-5);
  });

  it.each<[string, () => Graph]>([
    ['P-Net', () => pnet([1, 37, 50, 3])],
    ['R-Net', () => rnet([3])],
    ['O-Net', () => onet([2])],
    ['MobileFaceNet', () => mobileFaceNet([1, 112, 112, 3])],
    ['mbf, with its true groups', () => mobileFaceNet([1, 112, 112, 3], MBF)],
    ['a two-block iResNet', () => iresnet([1, 32, 32, 3], { depth: 18, blocks: [1, 1] })],
  ])('%s with random weights', async (_, build) => {
    const graph = build();
    const values = initialize(graph, 7);
    // Running statistics that do something.
    const random = seededRandom(11);
    for (const [name, { data }] of values)
      if (/running_/.test(name)) for (let i = 0; i < data.length; i++) data[i] = 0.2 + 0.5 * random();
    const found = await differences(graph, values);
    expectClose(found);
  });
});

describe('public weights', () => {
  const load = async (role: 'detector' | 'recogniser', net?: string): Promise<LoadedWeights | undefined> =>
    process.env.WFR_WEIGHTS ? loadWeights(role, { net }).catch(() => undefined) : undefined;

  it('P-, R- and O-Net agree with the independent engine to 1e-4', async (ctx) => {
    const weights = await load('detector');
    if (!weights) return ctx.skip('no public detector weights at WFR_WEIGHTS');
    for (const graph of [pnet([1, 60, 80, 3]), rnet([4]), onet([4])])
      expectClose(await differences(graph, weights.state));
  });

  it.for(['xiaoccer', 'liguiyuan'])('MobileFaceNet of %s agrees to 1e-4', async (publisher, ctx) => {
    const weights = await load('recogniser', publisher);
    if (!weights) return ctx.skip(`no weights of ${publisher} at WFR_WEIGHTS`);
    const net = recogniserOf(weights.metadata.net, weights.metadata)!;
    expectClose(await differences(net.build([1, net.height, net.width, net.channels]), weights.state));
  });
});

describe('reading ONNX back', () => {
  it('finds every weight that was written', () => {
    const graph = rnet([1]);
    const values = initialize(graph, 5);
    const { state } = readOnnx(exportOnnx(graph, values));
    for (const [name, { shape, data }] of values) {
      if (name.includes('prelu') && state.has(`${name}/map`)) continue;
      expect(state.get(name)).toEqual({ shape, data });
    }
    expect(state.size).toBe(values.size);
  });

  const metadata: WeightsMetadata = {
    net: 'mobilefacenet',
    title: 'Täst',
    config: { ...PAPER, ...MBF },
    input: { height: 112, width: 112 },
    preprocessing: { mean: 127.5, scale: 1 / 128, order: 'rgb' },
    threshold: { similarity: 0.31, basis: 'pairs', far: 0.01, tar: 0.9, curve: [] },
  };

  it('gives the same tensors, metadata and embedding net', () => {
    const net = recogniserOf('mobilefacenet', metadata)!;
    const graph = net.build([1, net.height, net.width, net.channels]);
    const values = initialize(graph, 5);
    const back = readWeights([exportOnnx(graph, values, metadata)]);
    expect(back.metadata).toEqual(metadata);
    expect([...back.state.keys()].sort()).toEqual([...values.keys()].sort());
    for (const [name, { shape, data }] of values) {
      expect(back.state.get(name)!.shape, name).toEqual(shape);
      expect(Buffer.compare(Buffer.from(back.state.get(name)!.data.buffer), Buffer.from(data.buffer))).toBe(
        0,
      );
    }
    const again = recogniserOf(back.metadata.net, back.metadata)!;
    expect(again.dimension).toBe(net.dimension);
    expect(again.build([1, 112, 112, 3]).nodes).toEqual(graph.nodes);
  });

  it('joins the three files of an MTCNN and refuses a part of it', () => {
    const mtcnn: WeightsMetadata = { net: 'mtcnn', title: 'three' };
    const graphs = [onet([1]), pnet([1, 12, 12, 3]), rnet([1])];
    const values = graphs.map((g) => initialize(g, 2));
    const files = graphs.map((g, i) => exportOnnx(g, values[i], mtcnn));
    const back = readWeights(files);
    expect(back.metadata).toEqual(mtcnn);
    for (const [name, { shape, data }] of values.flatMap((v) => [...v]))
      expect(back.state.get(name), name).toEqual({ shape, data });
    expect(() => readWeights([files[1]])).toThrow(/three nets, and only P-Net is here: give/);
    expect(() => readWeights(files.slice(0, 2))).toThrow(/only P-Net and O-Net are here/);
  });

  it.each<[string, unknown]>([
    ['config', [1]],
    ['config', { blocks: null }],
    ['input', { height: '112', width: 112 }],
    ['preprocessing', { mean: 1, scale: 1, order: 'cmyk' }],
    ['threshold', { similarity: 'high', basis: '' }],
    ['threshold', '{broken'],
  ])('refuses a wrong %s', (key, value) => {
    const graph = rnet([1]);
    const wrong = { ...metadata, [key]: value } as WeightsMetadata;
    const file = exportOnnx(graph, initialize(graph, 5), wrong);
    expect(() => readWeights([file])).toThrow(new RegExp(`metadata: ${key} must be JSON of`));
  });
});
