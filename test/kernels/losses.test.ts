import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import type { BufferRange } from '../../src/gpu/gpu.js';
import { distillLoss, distillLossBackward } from '../../src/kernels/distill_loss/distill_loss.js';
import { distillReference } from '../../src/kernels/distill_loss/reference.js';
import type { Margin } from '../../src/kernels/margin_loss/margin.js';
import { marginLoss, marginLossBackward } from '../../src/kernels/margin_loss/margin_loss.js';
import { marginLossReference, marginReference } from '../../src/kernels/margin_loss/reference.js';
import { pack } from '../../src/kernels/packing.js';
import { type Operand, quads } from '../../src/kernels/tensor.js';
import { type Buffers, checkOp, noise, sharedGpu } from '../check_op.js';

/** Rows of length one, computed as the GPU's l2Normalize would hand them over: rounded to f32. */
function unitRows(rows: number, dimension: number, seed: number, zero: readonly number[] = []): Float32Array {
  const x = noise(rows * dimension, seed);
  for (let i = 0; i < rows; i++) {
    const row = x.subarray(i * dimension, (i + 1) * dimension);
    const length = zero.includes(i) ? Number.POSITIVE_INFINITY : Math.hypot(...row);
    for (let k = 0; k < dimension; k++) row[k] /= length;
  }
  return x;
}

/** Differences of `f` about x: (f(x + h) − f(x − h)) / 2h, in f64. */
function central(f: (x: Float64Array) => number, x: ArrayLike<number>, h = 1e-5): Float64Array {
  const at = Float64Array.from(x);
  return at.map((value, i) => {
    at[i] = value + h;
    const up = f(at);
    at[i] = value - h;
    const down = f(at);
    at[i] = value;
    return (up - down) / (2 * h);
  });
}

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, relative: number): void {
  const scale = Math.max(...Array.from(expected, Math.abs), 1e-6);
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++)
    expect(Math.abs(actual[i] - expected[i]), `element ${i}`).toBeLessThanOrEqual(relative * scale);
}

const scratch =
  (buffers: Buffers) =>
  (shape: readonly number[]): Operand<BufferRange> =>
    buffers.output(shape);

describe('distillation loss', () => {
  const cases = [
    { n: 1, d: 4, t: 4, alpha: 1, lambda: 5 },
    { n: 5, d: 7, t: 7, alpha: 1, lambda: 5 },
    { n: 10, d: 3, t: 3, alpha: 0.7, lambda: 0 },
    { n: 9, d: 10, t: 5, alpha: 0, lambda: 3 },
    { n: 64, d: 128, t: 128, alpha: 1, lambda: 5 },
  ];
  const without = (n: number) => (n > 4 ? [1, n - 1] : []);

  it.each(cases)('of $n rows of $d against $t numbers', async ({ n, d, t, alpha, lambda }) => {
    const u = unitRows(n, d, 3);
    const teacher = unitRows(n, t, 4, without(n));
    const dLoss = 1.5;
    const want = distillReference(u, teacher, n, alpha, lambda);
    // Sums of products of unit rows: every R is at most 2, every sum of n of them at most 2n.
    await checkOp(await sharedGpu(), (b) => {
      const [unit, loss, rows, du] = [
        b.operand(u, [n, d]),
        b.output([1]),
        b.output([n, 3]),
        b.output([n, d]),
      ];
      const call = {
        unit,
        teacher: b.operand(teacher, [n, t]),
        cosineWeight: alpha,
        relationWeight: lambda,
        residual: b.output([n, n]),
      };
      const calls = [
        ...distillLoss(call, rows, loss),
        ...distillLossBackward(call, b.operand(new Float32Array([dLoss]), [1]), du, scratch(b)),
      ];
      const magnitude = (length: number, value: number) => new Float64Array(length).fill(value);
      const outputs = [
        {
          name: 'loss',
          operand: loss,
          shape: [1],
          expected: [want.loss],
          magnitude: [2 * alpha + 4 * lambda],
          steps: d + t + n,
        },
        {
          name: 'rows',
          operand: rows,
          shape: [n, 3],
          expected: want.rows,
          magnitude: magnitude(n * 3, 4 * n),
          steps: d + t,
        },
        {
          name: 'du',
          operand: du,
          shape: [n, d],
          expected: want.du.map((v) => v * dLoss),
          magnitude: magnitude(n * d, (dLoss * (alpha + 8 * lambda)) / n),
          steps: d + t + n,
        },
      ];
      return { calls, outputs };
    });
  });

  it('has the gradient of its central differences and of tfjs', async () => {
    const [n, d] = [6, 5];
    const u = unitRows(n, d, 3);
    const t = unitRows(n, d, 4, [2]);
    const { du } = distillReference(u, t, n, 0.7, 5);
    close(
      du,
      central((x) => distillReference(x, t, n, 0.7, 5).loss, u),
      1e-6,
    );
    await tf.setBackend('cpu');
    const mask = tf.tensor2d([1, 1, 0, 1, 1, 1], [n, 1]);
    const loss = (x: tf.Tensor) => {
      const y = tf.tensor2d(t, [n, d]);
      const cosine = tf.div(tf.sum(tf.mul(mask, tf.sub(1, tf.sum(tf.mul(x, y), 1, true)))), 5);
      const difference = tf.sub(tf.matMul(x, x, false, true), tf.matMul(y, y, false, true));
      const masked = tf.mul(difference, tf.matMul(mask, mask, false, true));
      return tf.add(tf.mul(cosine, 0.7), tf.mul(tf.sum(tf.square(masked)), 5 / 25));
    };
    close(
      du,
      tf
        .grad(loss as (x: tf.Tensor) => tf.Tensor)(tf.tensor2d(u, [n, d]))
        .dataSync(),
      1e-5,
    );
  });
});

const PLAIN: Margin = { m1: 1, m2: 0, m3: 0, scale: 16, exact: false, gamma: 0 };
const FORMS: Record<string, Margin> = {
  softmax: PLAIN,
  'ArcFace, straight-through': { ...PLAIN, m2: 0.5, scale: 64 },
  'ArcFace, exact': { ...PLAIN, m2: 0.5, scale: 64, exact: true },
  CosFace: { ...PLAIN, m3: 0.4, scale: 30, exact: true },
  'focal, γ = 2': { ...PLAIN, m2: 0.3, gamma: 2 },
  'combined, m1 = 1.35': { ...PLAIN, m1: 1.35, m2: 0.2, m3: 0.1, exact: true },
  'ArcFace and CosFace': { ...PLAIN, m2: 0.3, m3: 0.2, exact: true },
};

/** Label 999 is no class. Row 0's own class is made to lie beyond π − m. */
function problem(n: number, d: number, classes: number) {
  const u = unitRows(n, d, 5);
  const w = noise(classes * d, 6);
  const labels = Uint32Array.from({ length: n }, (_, i) => (i === 2 ? 999 : (i * 7) % classes));
  if (n > 1) for (let k = 0; k < d; k++) w[labels[0] * d + k] = -2 * u[k] + 0.1 * w[labels[0] * d + k];
  return { u, w, labels };
}

async function checkMargin(n: number, d: number, classes: number, margin: Margin, chunk = classes) {
  const { u, w, labels } = problem(n, d, classes);
  const want = marginLossReference(u, w, labels, d, margin);
  const dLoss = 0.5;
  const gpu = await sharedGpu();
  // A logit s·c is off by d·s units at most, and so, relatively, is every p that is made of it.
  // WGSL promises no more of acos and cos, which the general form needs, than 2^-11.
  const trigonometry = margin.m1 === 1 ? 0 : 2 ** 13 * margin.scale;
  const steps = (d + 8) * margin.scale + classes + trigonometry;
  const pole = margin.exact ? 2 : 1;
  const focal = 1 + margin.gamma * 2;
  await checkOp(gpu, (b) => {
    const [loss, rows, du] = [b.output([1]), b.output([n, 4]), b.output([n, d])];
    const chunks = [];
    const dWeights = [];
    const outputs = [];
    for (let first = 0; first < classes; first += chunk) {
      const count = Math.min(chunk, classes - first);
      const part = w.slice(first * d, (first + count) * d);
      const packed = pack(part, [count, d], 'dense').data;
      const depth = quads(d) * 4;
      const dw = b.output([depth, count]);
      dWeights.push(dw.ref);
      const expected = new Float64Array(depth * count);
      for (let k = 0; k < d; k++)
        for (let j = 0; j < count; j++) expected[k * count + j] = want.dw[(first + j) * d + k] * dLoss;
      outputs.push({
        name: `dw from class ${first}`,
        operand: dw,
        shape: [depth, count],
        expected,
        magnitude: new Float64Array(depth * count).fill(
          (dLoss * pole * focal * margin.scale * 4) / Math.sqrt(d / 3),
        ),
        steps: steps + n,
      });
      chunks.push({
        first,
        classes: count,
        weight: b.bytes(packed),
        logits: b.output([n, count]),
        inverse: b.output([1, count]),
      });
    }
    const call = {
      unit: b.operand(u, [n, d]),
      labels: b.bytes(labels),
      chunks,
      margin,
      rows,
      head: b.output([1, 4]),
      temporary: scratch(b),
    };
    const calls = [
      ...marginLoss(call, loss, gpu.traits),
      ...marginLossBackward(call, b.operand(new Float32Array([dLoss]), [1]), du, dWeights, gpu.traits),
    ];
    outputs.push({
      name: 'loss',
      operand: loss,
      shape: [1],
      expected: [want.loss],
      magnitude: [focal * (1 + margin.scale * 2)],
      steps: d + 8 + classes + trigonometry,
    });
    outputs.push({
      name: 'du',
      operand: du,
      shape: [n, d],
      expected: want.du.map((v) => v * dLoss),
      magnitude: new Float64Array(n * d).fill((dLoss * pole * focal * margin.scale * 2) / Math.max(1, n - 1)),
      steps,
    });
    return { calls, outputs };
  });
}

describe('margin loss', () => {
  it.each(Object.entries(FORMS))('%s', async (_, margin) => {
    await checkMargin(7, 10, 13, margin);
  });

  it.each([
    [1, 1, 1],
    [3, 5, 7],
    [5, 3, 2],
    [16, 128, 1030],
  ])('%i rows, %i numbers, %i classes', async (n, d, classes) => {
    await checkMargin(n, d, classes, FORMS['ArcFace, exact']);
  });

  it('classes in chunks give the same', async () => {
    await checkMargin(6, 7, 29, FORMS['ArcFace, exact'], 8);
    await checkMargin(6, 7, 29, FORMS['ArcFace, straight-through'], 12);
  });

  it.each(Object.entries(FORMS))(
    '%s: the reference has the gradient of its central differences',
    (_, form) => {
      // The straight-through gradient is no gradient; the exact one of every form is.
      const margin = { ...form, exact: true };
      const { u, w, labels } = problem(5, 4, 6);
      const { du, dw } = marginLossReference(u, w, labels, 4, margin);
      close(
        du,
        central((x) => marginLossReference(x, w, labels, 4, margin).loss, u),
        1e-5,
      );
      close(
        dw,
        central((x) => marginLossReference(u, x, labels, 4, margin).loss, w),
        1e-5,
      );
    },
  );

  it('the general form falls all the way from θ = 0 to π, and its slope is its derivative', () => {
    for (const m1 of [1, 1.35, 1.8]) {
      const margin = { ...PLAIN, m1, m2: 0.3, exact: true };
      let before = Number.POSITIVE_INFINITY;
      for (let theta = 0.05; theta < 3.1; theta += 0.05) {
        const c = Math.cos(theta);
        const [phi, slope] = marginReference(c, margin);
        expect(phi).toBeLessThan(before);
        before = phi;
        if (Math.abs(m1 * theta + 0.3 - Math.PI) > 0.01) {
          const difference =
            (marginReference(c + 1e-6, margin)[0] - marginReference(c - 1e-6, margin)[0]) / 2e-6;
          expect(Math.abs(slope - difference)).toBeLessThan(1e-3 * Math.max(1, Math.abs(difference)));
        }
      }
    }
  });

  it('has the gradient that tfjs finds for ArcFace, straight-through', async () => {
    await tf.setBackend('cpu');
    const margin = FORMS['ArcFace, straight-through'];
    const [n, d, classes] = [6, 5, 8];
    const { u, w, labels } = problem(n, d, classes);
    labels[2] = 3;
    const want = marginLossReference(u, w, labels, d, margin);
    const hot = tf.oneHot(tf.tensor1d([...labels], 'int32'), classes);
    const loss = (x: tf.Tensor, v: tf.Tensor) => {
      const unit = tf.div(v, tf.sqrt(tf.sum(tf.square(v), 1, true)));
      const cosine = tf.matMul(x as tf.Tensor2D, unit as tf.Tensor2D, false, true);
      // Added as a constant, the margin is in the value and not in the gradient.
      const values = Array.from(cosine.dataSync(), (c, i) =>
        i % classes === labels[Math.floor(i / classes)] ? marginReference(c, margin)[0] - c : 0,
      );
      const logits = tf.mul(tf.add(cosine, tf.tensor2d(values, [n, classes])), margin.scale);
      return tf.neg(tf.mean(tf.sum(tf.mul(hot, tf.logSoftmax(logits)), 1)));
    };
    const [du, dw] = tf.grads(loss as (...x: tf.Tensor[]) => tf.Tensor)([
      tf.tensor2d(u, [n, d]),
      tf.tensor2d(w, [classes, d]),
    ]);
    close(want.du, du.dataSync(), 1e-4);
    close(want.dw, dw.dataSync(), 1e-4);
  });
});
