import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import { describe, expect, it } from 'vitest';
import { mtcnnLoss, mtcnnLossBackward } from '../../src/kernels/mtcnn_loss/loss.js';
import { mtcnnLossReference } from '../../src/kernels/mtcnn_loss/reference.js';
import { type MtcnnLossOptions, TASK } from '../../src/kernels/mtcnn_loss/tasks.js';
import { type Buffers, checkOp, noise, sharedGpu } from '../check_op.js';

const OPTIONS: MtcnnLossOptions = {
  classWeight: 1,
  boxWeight: 0.5,
  pointsWeight: 0.7,
  pointsBeta: 0.3,
  keep: 0.7,
};
const KINDS = [
  TASK.classify,
  TASK.classify | TASK.face | TASK.box,
  TASK.box,
  TASK.points,
  TASK.classify | TASK.face | TASK.box | TASK.points,
  TASK.box | TASK.points,
];

interface Case {
  logits: Float32Array;
  box: Float32Array;
  points: Float32Array;
  tasks: Uint32Array;
  boxTarget: Float32Array;
  pointsTarget: Float32Array;
}

/** @param kinds which of KINDS occur, in turn. */
function makeCase(n: number, seed: number, kinds = [0, 1, 2, 3, 4, 5, 0, 0]): Case {
  return {
    logits: noise(2 * n, seed).map((v) => 4 * v),
    box: noise(4 * n, seed + 1),
    points: noise(10 * n, seed + 2),
    tasks: Uint32Array.from({ length: n }, (_, i) => KINDS[kinds[i % kinds.length]]),
    boxTarget: noise(4 * n, seed + 3),
    pointsTarget: noise(10 * n, seed + 4),
  };
}

const reference = (
  c: Case,
  o = OPTIONS,
  logits: ArrayLike<number> = c.logits,
  box: ArrayLike<number> = c.box,
  points: ArrayLike<number> = c.points,
) => mtcnnLossReference(logits, box, points, c.tasks, c.boxTarget, c.pointsTarget, o);

const sum = (values: ArrayLike<number>) => Array.from(values).reduce((a, b) => a + Math.abs(b), 0);

async function check(c: Case, o = OPTIONS, withPoints = true): Promise<void> {
  const n = c.tasks.length;
  const gpu = await sharedGpu();
  const want = reference(withPoints ? c : { ...c, points: new Float32Array() }, o);
  await checkOp(gpu, (b: Buffers) => {
    const call = {
      logits: b.operand(c.logits, [n, 2]),
      box: b.operand(c.box, [n, 4]),
      points: withPoints ? b.operand(c.points, [n, 10]) : undefined,
      tasks: b.bytes(c.tasks),
      boxTarget: b.operand(c.boxTarget, [n, 4]),
      pointsTarget: withPoints ? b.operand(c.pointsTarget, [n, 10]) : undefined,
    };
    const [loss, rows, shares] = [b.output([1]), b.output([n, 4]), b.output([n, 4])];
    const d = {
      logits: b.output([n, 2]),
      box: b.output([n, 4]),
      points: withPoints ? b.output([n, 10]) : undefined,
    };
    const dLoss = b.operand(Float32Array.of(3), [1]);
    const times3 = (v: Float64Array) => v.map((x) => 3 * x);
    const output = (
      name: string,
      operand: typeof loss,
      expected: ArrayLike<number>,
      magnitude: ArrayLike<number>,
      steps = 32,
    ) => ({
      name,
      operand,
      shape: operand.shape,
      expected,
      magnitude,
      steps,
    });
    const share = Math.max(...want.shares);
    const like = (v: ArrayLike<number>, m: number) => new Float64Array(v.length).fill(m);
    return {
      calls: [...mtcnnLoss(call, o, { loss, rows, shares }), ...mtcnnLossBackward(call, o, shares, dLoss, d)],
      outputs: [
        output('loss', loss, [want.loss], [sum(want.rows) * share + 1], 32 + n),
        output('rows', rows, want.rows, like(want.rows, 40)),
        output('shares', shares, want.shares, like(want.shares, share)),
        output('dLogits', d.logits, times3(want.logits), like(want.logits, 3 * share)),
        output('dBox', d.box, times3(want.box), like(want.box, 12 * share)),
        ...(d.points
          ? [output('dPoints', d.points, times3(want.points), like(want.points, 12 * share))]
          : []),
      ],
    };
  });
}

describe('mtcnn loss', () => {
  it.each([1, 3, 7, 10, 33, 70])('agrees with its reference for %i samples', (n) => check(makeCase(n, n)));

  it('agrees without points, as P- and R-Net use it', () => check(makeCase(21, 5), OPTIONS, false));

  it('counts the first of equal losses', async () => {
    const c = makeCase(20, 3, [0]);
    c.logits.fill(0.5);
    await check(c);
    const { shares } = reference(c);
    expect(Array.from({ length: 20 }, (_, i) => shares[4 * i] > 0)).toEqual(
      Array.from({ length: 20 }, (_, i) => i < 14),
    );
  });

  it('is zero, not NaN, for a batch that lacks a task', async () => {
    for (const kinds of [[0], [2], [3], [4]]) await check(makeCase(9, 11, kinds));
  });

  it('stays finite for logits far apart', async () => {
    const c = makeCase(8, 2, [0, 1]);
    c.logits.set([200, -200, 200, -200, -200, 200, -200, 200]);
    await check(c);
    expect(Number.isFinite(reference(c).loss)).toBe(true);
  });

  it('keeps the share of the hardest that it is told', () => {
    const c = makeCase(10, 4, [0]);
    for (const [keep, kept] of [
      [0.7, 7],
      [1, 10],
      [0.25, 3],
    ])
      expect(reference(c, { ...OPTIONS, keep }).shares.filter((v, i) => i % 4 === 0 && v > 0)).toHaveLength(
        kept,
      );
  });
});

describe('mtcnn loss reference', () => {
  it('has the gradient of central differences', () => {
    const c = makeCase(11, 8);
    const want = reference(c);
    const e = 1e-6;
    for (const key of ['logits', 'box', 'points'] as const) {
      for (let i = 0; i < c[key].length; i++) {
        const at = (d: number) => {
          const moved = Float64Array.from(c[key]);
          moved[i] += d;
          const x = {
            logits: c.logits as ArrayLike<number>,
            box: c.box as ArrayLike<number>,
            points: c.points as ArrayLike<number>,
            [key]: moved,
          };
          return reference(c, OPTIONS, x.logits, x.box, x.points).loss;
        };
        expect((at(e) - at(-e)) / (2 * e)).toBeCloseTo(want[key][i], 7);
      }
    }
  });

  it('agrees with tfjs on loss and gradients', async () => {
    await tf.setBackend('cpu');
    const c = makeCase(24, 6);
    const n = c.tasks.length;
    const mask = (bit: number): number[] => Array.from(c.tasks, (t) => (t & bit ? 1 : 0));
    const loss = (logits: tf.Tensor, box: tf.Tensor, points: tf.Tensor): tf.Scalar => {
      const label = tf.tensor2d(Array.from(c.tasks, (t) => (t & TASK.face ? [0, 1] : [1, 0])));
      const entropy = tf.neg(tf.sum(tf.mul(label, tf.logSoftmax(logits as tf.Tensor2D)), 1));
      const classified = mask(TASK.classify);
      const kept = Math.ceil(0.7 * classified.reduce((a, b) => a + b, 0) - 1e-3);
      // tfjs has no gradient of topk: it says which, a mask takes them.
      const least = tf.mul(tf.sub(1, classified), 1e9);
      const chosen = tf
        .topk(tf.sub(tf.mul(entropy, classified), least) as tf.Tensor1D, kept)
        .indices.dataSync();
      const hardest = Array.from(c.tasks, (_, i) => (chosen.includes(i) ? 1 / kept : 0));
      // Boxes count squared at any distance.
      const mean = (x: tf.Tensor, t: Float32Array, width: number, bit: number, beta = 1e3) => {
        const far = tf.abs(tf.sub(x, tf.tensor2d(t, [n, width])));
        const near = tf.minimum(far, beta);
        const each = tf.sum(tf.mul(near, tf.sub(tf.mul(2, far), near)), 1);
        return tf.div(
          tf.sum(tf.mul(each, mask(bit))),
          mask(bit).reduce((a, b) => a + b, 0),
        );
      };
      return tf.add(
        tf.add(
          tf.sum(tf.mul(entropy, hardest)),
          tf.mul(OPTIONS.boxWeight, mean(box, c.boxTarget, 4, TASK.box)),
        ),
        tf.mul(OPTIONS.pointsWeight, mean(points, c.pointsTarget, 10, TASK.points, OPTIONS.pointsBeta)),
      ) as tf.Scalar;
    };
    const inputs = [
      tf.tensor2d(c.logits, [n, 2]),
      tf.tensor2d(c.box, [n, 4]),
      tf.tensor2d(c.points, [n, 10]),
    ];
    const { value, grads } = tf.valueAndGrads((a: tf.Tensor, b: tf.Tensor, p: tf.Tensor) => loss(a, b, p))(
      inputs,
    );
    const want = reference(c);
    expect(value.dataSync()[0]).toBeCloseTo(want.loss, 5);
    for (const [i, key] of (['logits', 'box', 'points'] as const).entries())
      for (const [k, g] of grads[i].dataSync().entries()) expect(g).toBeCloseTo(want[key][k], 5);
  });
});
