import { describe, expect, it } from 'vitest';
import { Graph } from '../../src/graph/graph.js';
import { TrainableParameters } from '../../src/graph/trainable.js';
import { TrainingStep } from '../../src/graph/training.js';
import { distillReference } from '../../src/kernels/distill_loss/reference.js';
import { gatherBackwardReference, gatherReference } from '../../src/kernels/gather/reference.js';
import { marginLossReference } from '../../src/kernels/margin_loss/reference.js';
import { noise, sharedGpu } from '../check_op.js';

const [N, F, D, C] = [5, 6, 7, 11];
const MARGIN = { m1: 1, m2: 0.4, m3: 0.1, scale: 12, exact: true, gamma: 0 };

/** e = x·Wᵀ, unit rows, and how a gradient of the unit rows goes back to W. */
function embed(x: Float32Array, w: Float32Array) {
  const unit = new Float64Array(N * D);
  const length = new Float64Array(N);
  for (let i = 0; i < N; i++) {
    for (let k = 0; k < D; k++) for (let f = 0; f < F; f++) unit[i * D + k] += x[i * F + f] * w[k * F + f];
    const row = unit.subarray(i * D, (i + 1) * D);
    length[i] = Math.hypot(...row);
    for (let k = 0; k < D; k++) row[k] /= length[i];
  }
  const back = (du: Float64Array) => {
    const dw = new Float64Array(D * F);
    for (let i = 0; i < N; i++) {
      let along = 0;
      for (let k = 0; k < D; k++) along += du[i * D + k] * unit[i * D + k];
      for (let k = 0; k < D; k++) {
        const de = (du[i * D + k] - unit[i * D + k] * along) / length[i];
        for (let f = 0; f < F; f++) dw[k * F + f] += de * x[i * F + f];
      }
    }
    return dw;
  };
  return { unit, back };
}

function near(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  const scale = Math.max(...Array.from(expected, Math.abs));
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    expect(Math.abs(actual[i] - expected[i]), `element ${i}`).toBeLessThanOrEqual(2e-5 * scale);
}

const values = (classes: Float32Array[]) =>
  new Map([
    ['w', { shape: [D, F], data: noise(D * F, 2) }],
    ...classes.map((data, k) => [`c${k}`, { shape: [data.length / D, D], data }] as const),
  ]);

async function gradients(
  build: (g: Graph) => void,
  inputs: Record<string, Float32Array | Uint32Array>,
  v: ReturnType<typeof values>,
) {
  const gpu = await sharedGpu();
  const g = new Graph('losses', { training: true });
  build(g);
  const parameters = TrainableParameters.create(gpu, g, v, {
    optimizer: { kind: 'sgd', momentum: 0, weightDecay: 0 },
  });
  const step = await TrainingStep.compile(gpu, g, 'loss', parameters);
  for (const [name, data] of Object.entries(inputs)) step.setInput(name, data);
  const out = await step.run({ learningRate: 0 }, ['loss']);
  const found = await parameters.readGradients();
  step.destroy();
  parameters.destroy();
  return { loss: out.loss[0], found };
}

const x = noise(N * F, 1);
const labels = Uint32Array.from([3, 10, 0, 0xffffffff, 7]);
const unitOf = (g: Graph) => g.l2Normalize(g.dense(g.input('x', [N, F]), g.parameter('w', [D, F], 'dense')));

describe('losses in a training step', () => {
  it('margin over chunks of classes and distillation together', async () => {
    const centres = noise(C * D, 3);
    const teacher = embed(x, noise(D * F, 9)).unit;
    teacher.fill(0, D, 2 * D);
    const v = values([centres.slice(0, 4 * D), centres.slice(4 * D)]);
    const { loss, found } = await gradients(
      (g) => {
        const unit = unitOf(g);
        const weights = [g.parameter('c0', [4, D], 'dense'), g.parameter('c1', [C - 4, D], 'dense')];
        const margin = g.marginLoss(unit, g.input('labels', [N], 'u32'), weights, MARGIN);
        const distill = g.distillLoss(unit, g.input('teacher', [N, D]), { cosine: 1, relation: 5 });
        g.output('loss', g.add2(g.scale(margin.loss, 0.25), distill.loss));
        g.output('rows', margin.rows);
      },
      { x, labels, teacher: Float32Array.from(teacher) },
      v,
    );
    const { unit, back } = embed(x, v.get('w')!.data);
    const a = marginLossReference(unit, centres, labels, D, MARGIN);
    const b = distillReference(unit, Float32Array.from(teacher), N, 1, 5);
    near([loss], [0.25 * a.loss + b.loss]);
    near(found.get('w')!.data, back(a.du.map((value, i) => 0.25 * value + b.du[i])));
    near(
      [...found.get('c0')!.data, ...found.get('c1')!.data],
      a.dw.map((value) => value * 0.25),
    );
  });

  it('margin over some of the classes', async () => {
    const centres = noise(C * D, 3);
    const selection = [0, 1, 3, 5, 7, 10];
    const local = Uint32Array.from(labels, (y) => (y < C ? selection.indexOf(y) : y));
    const v = values([centres.slice(0, 4 * D), centres.slice(4 * D)]);
    const { loss, found } = await gradients(
      (g) => {
        const weights = [g.parameter('c0', [4, D], 'dense'), g.parameter('c1', [C - 4, D], 'dense')];
        const chosen = g.gatherClasses(g.input('selection', [selection.length], 'u32'), weights);
        g.output('loss', g.marginLoss(unitOf(g), g.input('labels', [N], 'u32'), [chosen], MARGIN).loss);
      },
      { x, labels: local, selection: Uint32Array.from(selection) },
      v,
    );
    const transposed = new Float64Array(D * C);
    for (let k = 0; k < D; k++) for (let c = 0; c < C; c++) transposed[k * C + c] = centres[c * D + k];
    const some = gatherReference(transposed, C, selection);
    const rows = new Float64Array(some.length);
    const S = selection.length;
    for (let k = 0; k < D; k++) for (let j = 0; j < S; j++) rows[j * D + k] = some[k * S + j];
    const { unit, back } = embed(x, v.get('w')!.data);
    const want = marginLossReference(unit, rows, local, D, MARGIN);
    near([loss], [want.loss]);
    near(found.get('w')!.data, back(want.du));
    const dy = new Float64Array(D * S);
    for (let k = 0; k < D; k++) for (let j = 0; j < S; j++) dy[k * S + j] = want.dw[j * D + k];
    const dw = gatherBackwardReference(dy, C, selection);
    const expected = new Float64Array(C * D);
    for (let k = 0; k < D; k++) for (let c = 0; c < C; c++) expected[c * D + k] = dw[k * C + c];
    near([...found.get('c0')!.data, ...found.get('c1')!.data], expected);
  });
});
