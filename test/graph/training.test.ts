import { describe, expect, it } from 'vitest';
import { Graph, type Tensor } from '../../src/graph/graph.js';
import type { ParameterValue } from '../../src/graph/parameters.js';
import { TrainableParameters } from '../../src/graph/trainable.js';
import { planTraining, TrainingStep } from '../../src/graph/training.js';
import type { OptimizerConfig } from '../../src/kernels/optimizer/update.js';
import { initialize } from '../../src/nets/initialize.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { conv, norm, prelu } from '../../src/nets/layers.js';
import { mobileFaceNet, PAPER } from '../../src/nets/mobilefacenet.js';
import { noise, sharedGpu } from '../check_op.js';
import { tfjsGradients } from './tfjs.js';

const SGD: OptimizerConfig = { kind: 'sgd', momentum: 0.9, weightDecay: 5e-4 };

/** Weights as a net begins with, moved a little so that no scale is one and no shift zero. */
function values(graph: Graph, seed = 1): Map<string, ParameterValue> {
  const out = initialize(graph, seed);
  let k = seed;
  for (const [name, v] of out)
    if (v.shape.length === 1) {
      const shift = noise(v.data.length, ++k);
      out.set(name, { shape: v.shape, data: v.data.map((x, i) => x + 0.2 * shift[i]) });
    }
  return out;
}

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
  x = prelu(g, 'p1', x);
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
