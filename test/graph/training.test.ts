import { describe, expect, it } from 'vitest';
import { FlatLayout } from '../../src/graph/flat_layout.js';
import { Graph, type Tensor } from '../../src/graph/graph.js';
import type { ParameterValue } from '../../src/graph/parameters.js';
import { type TrainableOptions, TrainableParameters } from '../../src/graph/trainable.js';
import { planTraining, type TrainingOptions, TrainingStep } from '../../src/graph/training.js';
import { lowerTraining } from '../../src/graph/training_calls.js';
import { type OptimizerState, optimizerReference } from '../../src/kernels/optimizer/reference.js';
import type { OptimizerConfig } from '../../src/kernels/optimizer/update.js';
import { pack } from '../../src/kernels/packing.js';
import { initialize } from '../../src/nets/initialize.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { conv, norm, prelu } from '../../src/nets/layers.js';
import { mobileFaceNet, PAPER } from '../../src/nets/mobilefacenet.js';
import { noise, sharedGpu } from '../check_op.js';
import { tfjsGradients } from './tfjs.js';

const SGD: OptimizerConfig = { kind: 'sgd', momentum: 0.9, weightDecay: 5e-4 };

/** Weights as a net begins with, moved a little so that no scale is one and no shift zero; `signed` ones get both signs. */
function values(graph: Graph, seed = 1): Map<string, ParameterValue> {
  const out = initialize(graph, seed);
  let k = seed;
  for (const [name, v] of out)
    if (v.shape.length === 1) {
      const shift = noise(v.data.length, ++k);
      const far = name.startsWith('signed') ? 0.8 : 0.2;
      out.set(name, { shape: v.shape, data: v.data.map((x, i) => x + far * shift[i]) });
    }
  return out;
}

const MOBILEFACENET_CURVE = [1.6209, 0.4555, 0.1968, 0.1262, 0.1428, 0.0842, 0.0611, 0.0472, 0.0367, 0.0311];
const IRESNET_CURVE = [2.9682, 0.1599, 0.1082, 0.0854, 0.0977, 0.0785, 0.0678, 0.0572, 0.116, 0.0459];

const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function inputsOf(graph: Graph, classes: number, seed = 3): Record<string, Float32Array | Uint32Array> {
  return Object.fromEntries(
    graph.nodes
      .filter((n) => n.op === 'input')
      .map((n) => [
        n.name!,
        n.attributes.dtype === 'u32'
          ? Uint32Array.from({ length: size(n.shape) }, (_, i) => (i * 7 + 1) % classes)
          : noise(size(n.shape), seed++),
      ]),
  );
}

/** A net's embedding under a linear classifier. */
function classify(g: Graph, classes: number): Graph {
  const e = g.outputTensor('embedding');
  const logits = g.dense(e, g.parameter('classes.weight', [classes, e.shape[1]], 'dense'));
  g.output('loss', g.softmaxCrossEntropy(logits, g.input('labels', [e.shape[0]], 'u32')));
  return g;
}

const NARROW = {
  ...PAPER,
  stem: 12,
  stemGroups: 12,
  blocks: [
    { expand: 24, outputs: 16, stride: 2 },
    { expand: 24, outputs: 16, stride: 1 },
    { expand: 36, outputs: 20, stride: 2 },
    { expand: 40, outputs: 20, stride: 1 },
  ],
  head: 40,
  embedding: 18,
};

/** Every op that the nets above do not use, in odd shapes. */
function others(): Graph {
  const g = new Graph('others', { training: true });
  const n = 3;
  let x: Tensor = g.input('x', [n, 11, 9, 3]);
  x = g.conv2d(x, g.parameter('c1.weight', [10, 3, 3, 3], 'conv'), {
    bias: g.parameter('c1.bias', [10], 'vector'),
    padding: 1,
  });
  x = prelu(g, 'signed', x);
  x = g.maxPool(x, { kernel: 3, stride: 2, ceil: true });
  let y = conv(g, 'c2', x, 10, { kernel: 3, padding: 1, groups: 2 });
  y = g.relu(norm(g, 'bn2', y));
  y = g.flip(g.mul(y, g.avgPool(x, { kernel: 3, stride: 1, padding: 1 })));
  y = g.dropout(g.add2(y, x), 0.3);
  const [, h, w] = y.shape;
  const order = { order: 'cwh' as const, map: [h, w, 10] };
  const f = g.flatten(y, 'whc');
  const a = g.dense(y, g.parameter('d1.weight', [5, h * w * 10], 'dense', order));
  const b = g.dense(
    f,
    g.parameter('d2.weight', [5, h * w * 10], 'dense'),
    g.parameter('d2.bias', [5], 'vector'),
  );
  const p = g.softmax(g.add2(a, b));
  const pooled = g.l2Normalize(g.globalAvgPool(y));
  const z = g.dense(pooled, g.parameter('d3.weight', [7, 10], 'dense'));
  const ce = g.softmaxCrossEntropy(z, g.input('labels', [n], 'u32'));
  const huber = g.smoothL1(p, g.input('target', [n, 5]), 0.3);
  g.output('loss', g.add2(ce, g.scale(huber, 2.5)));
  g.output('probability', p);
  return g;
}

/** Distance of two vectors over the length of the second. */
/** Ops with one tensor for both operands, and a norm and a convolution to which their own input is added. */
function twice(): Graph {
  const g = new Graph('twice', { training: true });
  let x: Tensor = g.input('x', [3, 6, 5, 4]);
  x = conv(g, 'c1', x, 6, { kernel: 3, padding: 1 });
  x = g.add2(norm(g, 'bn1', x), x);
  x = g.add2(conv(g, 'c2', x, 6, { kernel: 1 }), x);
  x = g.add2(g.mul(x, x), g.scale(g.add2(x, x), 0.2));
  g.output('loss', g.softmaxCrossEntropy(g.globalAvgPool(x), g.input('labels', [3], 'u32')));
  return g;
}

function distance(a: Float32Array, b: Float32Array): number {
  let d = 0;
  let l = 0;
  for (let i = 0; i < b.length; i++) {
    d += (a[i] - b[i]) ** 2;
    l += b[i] ** 2;
  }
  return Math.sqrt(d / l);
}

describe('gradients of whole graphs against TensorFlow.js', () => {
  it.each([
    ['every other op', others, 7],
    ['tensors used twice in an op', twice, 6],
    ['MobileFaceNet', () => classify(mobileFaceNet([4, 32, 32, 3], NARROW, { training: true }), 6), 6],
    [
      'iResNet of two blocks',
      () =>
        classify(
          iresnet(
            [3, 20, 20, 3],
            { depth: 18, blocks: [1, 1], widths: [10, 12], embedding: 14, dropout: 0.4 },
            { training: true },
          ),
          5,
        ),
      5,
    ],
  ] as const)('%s', async (_, build, classes) => {
    const gpu = await sharedGpu();
    const graph = build();
    const weights = values(graph);
    const inputs = inputsOf(graph, classes);
    const seed = 77;
    const expected = await tfjsGradients(graph, 'loss', inputs, weights, seed);
    const parameters = TrainableParameters.create(gpu, graph, weights, { optimizer: SGD });
    const step = await TrainingStep.compile(gpu, graph, 'loss', parameters);
    for (const [name, data] of Object.entries(inputs)) step.setInput(name, data);
    const { loss } = await step.run({ learningRate: 0, seed }, ['loss']);
    expect(loss[0]).toBeCloseTo(expected.outputs.loss[0], 4);
    const gradients = await parameters.readGradients();
    expect([...gradients.keys()].sort()).toEqual([...expected.gradients.keys()].sort());
    // A bias before a batch norm has gradient zero: compare with the longest, not with itself.
    const lengths = [...expected.gradients.values()].map((g) => Math.hypot(...g));
    const longest = Math.max(...lengths);
    for (const [name, g] of expected.gradients) {
      const far = distance(gradients.get(name)!.data, g);
      if (Math.hypot(...g) > 1e-4 * longest) expect(far, name).toBeLessThan(2e-4);
      else expect(Math.hypot(...gradients.get(name)!.data), name).toBeLessThan(2e-4 * longest);
    }
    // Running averages take in a tenth of the batch's statistics, the variance unbiased.
    const after = await parameters.read();
    for (const [name, s] of expected.statistics) {
      const before = weights.get(name)!.data;
      const want = before.map((v, i) => 0.9 * v + 0.1 * s[i]);
      expect(distance(after.get(name)!.data, want), name).toBeLessThan(1e-5);
    }
    step.destroy();
    parameters.destroy();
  });
});

/** A small net that trains fast. */
function tiny(options: { width?: number; dropout?: number } = {}): Graph {
  const g = new Graph('tiny', { training: true });
  const width = options.width ?? 6;
  let x: Tensor = g.input('x', [4, 6, 6, 3]);
  x = prelu(g, 'p1', norm(g, 'bn1', conv(g, 'c1', x, width, { kernel: 3, padding: 1 })));
  x = g.dropout(x, options.dropout ?? 0);
  const y = norm(g, 'bn2', conv(g, 'c2', x, width, { kernel: 3, padding: 1, groups: width }));
  g.output('embedding', g.globalAvgPool(g.add2(y, x)));
  return classify(g, 5);
}

const OPTIMIZERS: OptimizerConfig[] = [
  { kind: 'sgd', momentum: 0, weightDecay: 0.01 },
  { kind: 'sgd', momentum: 0.9, weightDecay: 0.01 },
  { kind: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0 },
  { kind: 'adamw', beta1: 0.9, beta2: 0.99, eps: 1e-6, weightDecay: 0.05 },
];

async function start(
  graph: Graph,
  trainable: Partial<TrainableOptions> = {},
  options: TrainingOptions = {},
  weights = values(graph),
) {
  const gpu = await sharedGpu();
  const parameters = TrainableParameters.create(gpu, graph, weights, { optimizer: SGD, ...trainable });
  const step = await TrainingStep.compile(gpu, graph, 'loss', parameters, options);
  const inputs = inputsOf(graph, 5);
  for (const [name, data] of Object.entries(inputs)) step.setInput(name, data);
  const destroy = () => {
    step.destroy();
    parameters.destroy();
  };
  return { gpu, parameters, step, destroy, weights };
}

const data = (map: Map<string, ParameterValue>) =>
  new Map([...map].map(([k, v]) => [k, Array.from(v.data)] as const));

describe('optimisers', () => {
  it.each(OPTIMIZERS.map((o) => [JSON.stringify(o), o] as const))(
    '%s: three steps by the definitions',
    async (_, optimizer) => {
      const { parameters, step, destroy, weights } = await start(tiny(), { optimizer, ema: 0.2 });
      const states = new Map<string, OptimizerState>();
      const ema = new Map<string, Float64Array>();
      for (let k = 0; k < 3; k++) {
        const rate = 0.1 / (k + 1);
        await step.run({ learningRate: rate });
        for (const [name, g] of await parameters.readGradients()) {
          const from = weights.get(name)!.data;
          const state = states.get(name) ?? {
            weights: Float64Array.from(from),
            moments: [new Float64Array(from.length), new Float64Array(from.length)],
            step: 0,
          };
          states.set(name, state);
          const decays = from.length > 0 && weights.get(name)!.shape.length > 1;
          optimizerReference(
            state,
            g.data,
            { ...optimizer, weightDecay: decays ? optimizer.weightDecay : 0 },
            rate,
          );
          const average = ema.get(name) ?? Float64Array.from(from);
          // 2/11 at first, then all of it.
          const decay = Math.min(0.2, (2 + k) / (11 + k));
          ema.set(
            name,
            average.map((v, i) => decay * v + (1 - decay) * state.weights[i]),
          );
        }
      }
      const [after, averaged] = [await parameters.read(), await parameters.read('ema')];
      for (const [name, state] of states) {
        expect(distance(after.get(name)!.data, Float32Array.from(state.weights)), name).toBeLessThan(2e-6);
        expect(distance(averaged.get(name)!.data, Float32Array.from(ema.get(name)!)), name).toBeLessThan(
          2e-6,
        );
      }
      // The average has the same running statistics.
      expect(averaged.get('bn1.running_mean')).toEqual(after.get('bn1.running_mean'));
      expect((await step.status()).step).toBe(3);
      destroy();
    },
  );

  it('clips the gradient to a global norm', async () => {
    const plain = await start(tiny(), { optimizer: OPTIMIZERS[0] });
    await plain.step.run({ learningRate: 0 });
    const gradients = await plain.parameters.readGradients();
    const norm = Math.sqrt(
      [...gradients.values()].reduce((s, g) => s + g.data.reduce((a, v) => a + v * v, 0), 0),
    );
    plain.destroy();
    for (const clipNorm of [norm / 3, norm * 2]) {
      const optimizer: OptimizerConfig = { kind: 'sgd', momentum: 0, weightDecay: 0 };
      const { parameters, step, destroy, weights } = await start(tiny(), { optimizer }, { clipNorm });
      await step.run({ learningRate: 1 });
      expect((await step.status()).gradientNorm).toBeCloseTo(norm, 4);
      const after = await parameters.read();
      for (const [name, g] of gradients) {
        const factor = Math.min(1, clipNorm / norm);
        const want = weights.get(name)!.data.map((v, i) => v - factor * g.data[i]);
        expect(distance(after.get(name)!.data, want), name).toBeLessThan(1e-5);
      }
      destroy();
    }
  });

  it('accumulated gradients are the average of the batches; weights change on the last only', async () => {
    const optimizer: OptimizerConfig = { kind: 'sgd', momentum: 0, weightDecay: 0 };
    const { parameters, step, destroy, weights } = await start(tiny(), { optimizer }, { accumulate: 2 });
    const sum = new Map<string, Float32Array>();
    for (let k = 0; k < 2; k++) {
      step.setInput('x', noise(4 * 6 * 6 * 3, 20 + k));
      await step.run({ learningRate: 0.5 });
      for (const [name, g] of await parameters.readGradients()) {
        const before = sum.get(name);
        sum.set(
          name,
          g.data.map((v, i) => v / 2 + (before?.[i] ?? 0)),
        );
      }
      if (k === 0)
        expect(Array.from((await parameters.read()).get('c1.weight')!.data)).toEqual(
          Array.from(weights.get('c1.weight')!.data),
        );
    }
    const after = await parameters.read();
    for (const [name, g] of sum) {
      const want = weights.get(name)!.data.map((v, i) => v - 0.5 * g[i]);
      expect(distance(after.get(name)!.data, want), name).toBeLessThan(1e-5);
    }
    expect((await step.status()).step).toBe(1);
    destroy();
  });

  it('frozen weights stay, undecayed ones do not decay, padding stays zero', async () => {
    const optimizer: OptimizerConfig = { kind: 'sgd', momentum: 0.9, weightDecay: 0.5 };
    const { gpu, parameters, step, destroy, weights } = await start(tiny({ width: 5 }), {
      optimizer,
      frozen: (name) => name.startsWith('c1'),
    });
    for (let k = 0; k < 3; k++) await step.run({ learningRate: 0.1 });
    const after = await parameters.read();
    expect(after.get('c1.weight')!.data).toEqual(weights.get('c1.weight')!.data);
    expect(after.get('c2.weight')!.data).not.toEqual(weights.get('c2.weight')!.data);
    expect(parameters.layout.parameters.get('bn1.weight')!.group).toBe('noDecay');
    // What is read back and packed again must be all there is in the flat buffer.
    const flat = new Float32Array(
      await gpu.read(parameters.buffers.get('weights')!, 0, parameters.layout.bytes),
    );
    for (const p of parameters.layout.parameters.values()) {
      const packed = pack(after.get(p.name)!.data, p.shape, p.layout, p.flatten).data;
      expect(flat.slice(p.offset / 4, p.offset / 4 + packed.length), p.name).toEqual(packed);
    }
    destroy();
  });
});

describe('a training step', () => {
  it('repeats bit for bit, and continues bit for bit from a snapshot', async () => {
    const build = () => tiny({ dropout: 0.3 });
    const optimizer = OPTIMIZERS[3];
    const losses: number[][] = [];
    const ends: Map<string, number[]>[] = [];
    for (let run = 0; run < 3; run++) {
      const { parameters, step, destroy } = await start(build(), { optimizer, ema: 0.9 });
      const curve: number[] = [];
      for (let k = 0; k < 8; k++) {
        if (run === 2 && k === 4) {
          // As a new process would: fresh buffers, everything from the snapshot.
          const saved = await parameters.snapshot();
          for (let j = 0; j < 2; j++) await step.run({ learningRate: 1, seed: 99 });
          parameters.restore(saved);
        }
        curve.push((await step.run({ learningRate: 0.05, seed: k }, ['loss'])).loss[0]);
      }
      losses.push(curve);
      ends.push(data(await parameters.read()));
      destroy();
    }
    expect(losses[1]).toEqual(losses[0]);
    expect(losses[2]).toEqual(losses[0]);
    expect(ends[1]).toEqual(ends[0]);
    expect(ends[2]).toEqual(ends[0]);
    expect(losses[0][7]).toBeLessThan(losses[0][0]);
  });

  it('keeps buffers and bytes flat over 200 steps, and frees them', async () => {
    const gpu = await sharedGpu();
    const before = { ...gpu.stats };
    const { step, destroy } = await start(tiny());
    await step.run({ learningRate: 0.1 }, ['loss']);
    const during = { ...gpu.stats };
    for (let k = 0; k < 200; k++) await step.run({ learningRate: 0.01 }, k % 10 === 0 ? ['loss'] : []);
    expect(gpu.stats).toEqual(during);
    destroy();
    // A staging buffer may stay for the next readback.
    expect(gpu.stats.buffers).toBeLessThanOrEqual(before.buffers + 1);
  });

  it('takes the memory that was planned', async () => {
    const gpu = await sharedGpu();
    const graph = tiny();
    const plan = planTraining(gpu, graph, 'loss', { optimizer: SGD });
    const before = gpu.stats.bytes;
    const { step, destroy } = await start(graph);
    expect(step.memory).toMatchObject({ arena: plan.arena, parameters: plan.parameters, total: plan.total });
    expect(step.flops).toBe(plan.flops);
    // Beyond the plan: uniforms and padding to 16 bytes.
    expect(gpu.stats.bytes - before).toBeGreaterThanOrEqual(plan.total);
    expect(gpu.stats.bytes - before).toBeLessThan(plan.total + 20000);
    destroy();
  });

  it('names the first op whose values are not finite', async () => {
    const graph = tiny();
    const weights = values(graph);
    const { step, destroy } = await start(graph, {}, { detectAnomaly: true }, weights);
    await step.run({ learningRate: 0 });
    expect(await step.firstAnomaly()).toBeUndefined();
    const x = noise(4 * 6 * 6 * 3, 3);
    x[17] = Number.NaN;
    step.setInput('x', x);
    await step.run({ learningRate: 0 });
    expect(await step.firstAnomaly()).toBe('conv2d c1');
    destroy();
    const bad = new Map(weights);
    const w = bad.get('c2.weight')!;
    bad.set('c2.weight', {
      shape: w.shape,
      data: w.data.map((v, i) => (i === 5 ? Number.POSITIVE_INFINITY : v)),
    });
    const second = await start(graph, {}, { detectAnomaly: true }, bad);
    await second.step.run({ learningRate: 0 });
    expect(await second.step.firstAnomaly()).toBe('conv2d c2');
    second.destroy();
  });

  it('says what is wrong', async () => {
    const gpu = await sharedGpu();
    const graph = tiny();
    const { parameters, step, destroy, weights } = await start(graph);
    await expect(step.run({ learningRate: 0 }, ['los'])).rejects.toThrow(
      /no output los; it has embedding, loss/,
    );
    expect(() => step.setInput('labels', new Float32Array(4))).toThrow(/labels takes a Uint32Array/);
    expect(() => step.setInput('x', new Float32Array(4))).toThrow(/x has 4 values/);
    await expect(TrainingStep.compile(gpu, graph, 'embedding', parameters)).rejects.toThrow(
      /a loss is one number/,
    );
    await expect(TrainingStep.compile(gpu, graph, 'nothing', parameters)).rejects.toThrow(
      /no output nothing/,
    );
    weights.delete('p1.weight');
    expect(() => TrainableParameters.create(gpu, graph, weights, { optimizer: SGD })).toThrow(
      /no p1\.weight/,
    );
    expect(() => parameters.restore({})).toThrow(/snapshot's weights/);
    const inference = iresnet([1, 16, 16, 3], { depth: 18, blocks: [1], widths: [4], embedding: 4 });
    expect(() => TrainableParameters.create(gpu, inference, weights, { optimizer: SGD })).toThrow(
      /built for inference/,
    );
    expect(() => classify(mobileFaceNet([1, 32, 32, 3], NARROW, { training: true }), 3)).toThrow(
      /more than one value a channel/,
    );
    destroy();
  });
});

describe('less memory', () => {
  const nets = [
    ['MobileFaceNet', () => classify(mobileFaceNet([4, 48, 48, 3], NARROW, { training: true }), 5)],
    [
      'iResNet',
      () =>
        classify(
          iresnet(
            [3, 20, 20, 3],
            { depth: 18, blocks: [2, 1], widths: [10, 12], embedding: 14, dropout: 0.4 },
            { training: true },
          ),
          5,
        ),
    ],
    ['every other op', others],
  ] as const;

  it.each(nets)(
    '%s: recomputed activations give the same gradients bit for bit from less memory',
    async (name, build) => {
      const results: { gradients: Map<string, number[]>; after: Map<string, number[]>; arena: number }[] = [];
      for (const recompute of [false, true]) {
        const { parameters, step, destroy } = await start(build(), {}, { recompute });
        await step.run({ learningRate: 0.1, seed: 5 });
        results.push({
          gradients: data(await parameters.readGradients()),
          after: data(await parameters.read()),
          arena: step.memory.arena,
        });
        destroy();
      }
      expect(results[1].gradients).toEqual(results[0].gradients);
      expect(results[1].after).toEqual(results[0].after);
      if (name !== 'every other op') expect(results[1].arena).toBeLessThan(0.9 * results[0].arena);
    },
  );

  it.each(nets)('%s: maps in halves give the gradient to their precision', async (name, build) => {
    const full = await start(build());
    const { loss: want } = await full.step.run({ learningRate: 0, seed: 5 }, ['loss']);
    const expected = await full.parameters.readGradients();
    const half = await start(build(), {}, { precision: 'f16', lossScale: 512 });
    const { loss } = await half.step.run({ learningRate: 0, seed: 5 }, ['loss']);
    expect(Math.abs(loss[0] - want[0])).toBeLessThan(0.01 * want[0]);
    const gradients = await half.parameters.readGradients();
    const [all, wanted] = [gradients, expected].map((m) =>
      Float32Array.from([...m.values()].flatMap((v) => Array.from(v.data))),
    );
    // What a step needs of it is the direction: layers of roundings at 2^-11, magnified by norms over four values.
    const dot = (a: Float32Array, b: Float32Array) => a.reduce((t, v, i) => t + v * b[i], 0);
    expect(dot(all, wanted) / Math.sqrt(dot(all, all) * dot(wanted, wanted))).toBeGreaterThan(0.995);
    expect(Math.sqrt(dot(all, all) / dot(wanted, wanted)) / 512).toBeCloseTo(1, 1);
    if (name !== 'every other op') expect(half.step.memory.arena).toBeLessThan(0.75 * full.step.memory.arena);
    full.destroy();
    half.destroy();
  });

  // Why training in halves needs no loss scale: gradients do not vanish in f32, and maps do not overflow.
  it.each(nets)('%s: a loss scale changes no bit of the gradient', async (_, build) => {
    const gradients: Map<string, Float32Array>[] = [];
    for (const lossScale of [1, 65536]) {
      const { parameters, step, destroy } = await start(build(), {}, { precision: 'f16', lossScale });
      await step.run({ learningRate: 0, seed: 5 });
      const read = await parameters.readGradients();
      gradients.push(new Map([...read].map(([name, { data }]) => [name, data.map((v) => v / lossScale)])));
      destroy();
    }
    expect(gradients[1]).toEqual(gradients[0]);
  });

  it('maps in halves stay finite where they would overflow', async () => {
    const { parameters, step, destroy } = await start(tiny(), {}, { precision: 'f16', clipNorm: 1 });
    step.setInput(
      'x',
      noise(4 * 6 * 6 * 3, 3).map((v) => 1e7 * v),
    );
    const { loss } = await step.run({ learningRate: 0.1 }, ['loss']);
    expect(loss[0]).toSatisfy(Number.isFinite);
    for (const [name, { data }] of await parameters.readGradients())
      expect(data.every(Number.isFinite), name).toBe(true);
    expect(await step.status()).toMatchObject({ step: 1, skipped: 0 });
    destroy();
  });
});

describe('a gradient that is not finite', () => {
  it('changes nothing, halves the scale, and the next step goes on', async () => {
    const { parameters, step, destroy } = await start(
      tiny(),
      { ema: 0.9 },
      { precision: 'f16', lossScale: 'dynamic', clipNorm: 5 },
    );
    await step.run({ learningRate: 0.1 });
    const before = await parameters.snapshot();
    expect((await step.status()).lossScale).toBe(65536);
    const x = noise(4 * 6 * 6 * 3, 3);
    step.setInput(
      'x',
      x.map((v, i) => (i === 7 ? Number.POSITIVE_INFINITY : v)),
    );
    await step.run({ learningRate: 0.1 });
    const after = await parameters.snapshot();
    for (const name of ['weights', 'moment0', 'ema'])
      expect(new Uint32Array(after[name]), name).toEqual(new Uint32Array(before[name]));
    expect(await step.status()).toMatchObject({ step: 1, skipped: 1, lossScale: 32768 });
    step.setInput('x', x);
    await step.run({ learningRate: 0.1 });
    expect(await step.status()).toMatchObject({ step: 2, skipped: 1, lossScale: 32768 });
    expect(new Uint32Array((await parameters.snapshot()).weights)).not.toEqual(
      new Uint32Array(before.weights),
    );
    destroy();
  });

  it('a power of two on the loss changes no update', async () => {
    const ends: Map<string, number[]>[] = [];
    for (const lossScale of [undefined, 1024]) {
      const { parameters, step, destroy } = await start(tiny(), {}, { lossScale });
      for (let k = 0; k < 3; k++) await step.run({ learningRate: 0.1 });
      ends.push(data(await parameters.read()));
      destroy();
    }
    expect(ends[1]).toEqual(ends[0]);
  });
});

describe('a loss curve', () => {
  const curve = async (build: () => Graph) => {
    const { step, destroy } = await start(build());
    const losses: number[] = [];
    for (let k = 0; k < 10; k++)
      losses.push((await step.run({ learningRate: 0.02, seed: k }, ['loss'])).loss[0]);
    destroy();
    return losses;
  };

  // Ten steps of SGD from seed 1 on one batch. Adapters round differently, and a step magnifies it.
  it.each([
    [
      'MobileFaceNet',
      () => classify(mobileFaceNet([4, 32, 32, 3], NARROW, { training: true }), 5),
      MOBILEFACENET_CURVE,
    ],
    [
      'iResNet',
      () =>
        classify(
          iresnet(
            [4, 20, 20, 3],
            { depth: 18, blocks: [1, 1], widths: [10, 12], embedding: 14, dropout: 0.4 },
            { training: true },
          ),
          5,
        ),
      IRESNET_CURVE,
    ],
  ] as const)('%s: as pinned, and the same twice', async (_, build, pinned) => {
    const first = await curve(build);
    expect(await curve(build)).toEqual(first);
    first.forEach((loss, k) => {
      expect(Math.abs(loss - pinned[k]), `step ${k}: ${first}`).toBeLessThan(0.003 + 0.02 * pinned[k]);
    });
  });
});

describe('devices', () => {
  it('at the guaranteed limits and without subgroups the gradient is the same', async () => {
    const build = () =>
      classify(
        iresnet([3, 12, 12, 3], { depth: 18, blocks: [1], widths: [6], embedding: 5 }, { training: true }),
        5,
      );
    const optimizer = OPTIMIZERS[3];
    const usual = await start(build());
    await usual.step.run({ learningRate: 0 });
    const expected = await usual.parameters.readGradients();
    usual.destroy();
    const gpu = await sharedGpu({ minimal: true });
    const graph = build();
    const parameters = TrainableParameters.create(gpu, graph, values(graph), { optimizer, ema: 0.9 });
    const step = await TrainingStep.compile(gpu, graph, 'loss', parameters, { clipNorm: 1, accumulate: 2 });
    for (const [name, data] of Object.entries(inputsOf(graph, 5))) step.setInput(name, data);
    for (let k = 0; k < 2; k++) await step.run({ learningRate: 0 });
    const gradients = await parameters.readGradients();
    const longest = Math.max(...[...expected.values()].map((g) => Math.hypot(...g.data)));
    for (const [name, g] of expected) {
      const difference = g.data.map((v, i) => v - gradients.get(name)!.data[i]);
      expect(Math.hypot(...difference), name).toBeLessThan(1e-4 * longest);
    }
    expect((await step.status()).step).toBe(1);
    step.destroy();
    parameters.destroy();
  });

  it('flat buffers are bound in pieces no larger than the device allows, each part once', async () => {
    const gpu = await sharedGpu();
    const limit = 4096;
    const graph = tiny({ width: 40 });
    const layout = new FlatLayout(graph);
    const traits = { ...gpu.traits, maxBindingBytes: limit };
    const { calls, update } = lowerTraining(
      traits,
      graph,
      'loss',
      layout,
      { optimizer: SGD, ema: 0.9 },
      { clipNorm: 1 },
    );
    expect(layout.trainedBytes).toBeGreaterThan(2 * limit);
    const updates = calls.slice(update).filter((c) => c.label.startsWith('optimizer.sgd'));
    let end = 0;
    for (const call of updates) {
      const [{ ref: weights }, ...others] = call.buffers;
      expect(weights.flat!.offset).toBe(end);
      expect(end % 256).toBe(0);
      for (const { ref, name } of others) if (name !== 'step') expect(ref.flat!.offset).toBe(end);
      for (const { ref } of call.buffers) expect(ref.bytes).toBeLessThanOrEqual(limit);
      expect(call.uniforms.count.value * 16).toBe(weights.bytes);
      end += weights.bytes;
    }
    expect(end).toBe(layout.trainedBytes);
  });
});
