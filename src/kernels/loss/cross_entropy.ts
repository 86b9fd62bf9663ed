/**
 * Softmax cross-entropy over rows of logits [.., C] with class labels, mean over the rows:
 *
 *   L = −1/N Σ_i log softmax(x_i)[label_i]      dx_i = (softmax(x_i) − onehot(label_i))·dL/N
 *
 * The backward pass computes the softmax again from the logits; nothing but them is kept. Labels outside 0 … C−1 give a
 * row no loss and no gradient, and N counts the others (PyTorch's ignore_index).
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { channelsOf, eachItem, grid, type Operand, quads, quadsOf, read, rowsOf, write } from '../tensor.js';

const SIZE = 8;

export interface CrossEntropy<B> {
  logits: Operand<B>;
  /** array<u32>, one a row. */
  labels: B;
  temporary(shape: readonly number[], dtype: 'f32'): Operand<B>;
}

const labels = <B>(ref: B) => ({ name: 'labels', ref, element: 'u32', write: false });

const uniforms = <B>(logits: Operand<B>) => ({
  count: u32(rowsOf(logits.shape)),
  channels: u32(channelsOf(logits.shape)),
  channel_quads: u32(quads(channelsOf(logits.shape))),
});

/** The row's maximum `most` and Σ exp(x − most) `total`. */
const ROW = `
  let first = i * params.channel_quads;
  var top = vec4<f32>(-3.4028234e38);
  for (var q = 0u; q < params.channel_quads; q++) { top = select(top, max(top, load_x(first + q)), real(q)); }
  let most = max(max(top.x, top.y), max(top.z, top.w));
  var sums = vec4<f32>(0.0);
  for (var q = 0u; q < params.channel_quads; q++) { sums += select(vec4<f32>(0.0), exp(load_x(first + q) - most), real(q)); }
  let total = dot(sums, vec4<f32>(1.0));`;

const REAL = `
// Which of the four channels of a quad exist.
fn real(q: u32) -> vec4<bool> { return vec4<u32>(q * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels); }`;

/** `loss` [1]. */
export function crossEntropy<B>(c: CrossEntropy<B>, loss: Operand<B>): KernelCall<B>[] {
  const rows = rowsOf(c.logits.shape);
  const each = c.temporary([rows, 2], 'f32');
  return [
    {
      label: 'crossEntropy.rows',
      uniforms: uniforms(c.logits),
      buffers: [read('x', c.logits), labels(c.labels), write('each', each)],
      body: `${REAL}
${eachItem(SIZE)}${ROW}
  let label = labels[i];
  let known = label < params.channels;
  let at = min(label, params.channels - 1u);
  let value = most + log(total) - load_x(first + at / 4u)[at % 4u];
  store_each(i, select(vec4<f32>(0.0), vec4<f32>(value, 1.0, 0.0, 0.0), known));
}`,
      workgroups: grid(rows, SIZE),
      flops: quadsOf(c.logits.shape) * 4 * 4,
      bytes: quadsOf(c.logits.shape) * 16,
    },
    {
      label: 'crossEntropy.mean',
      uniforms: { rows: u32(rows) },
      buffers: [read('each', each), write('loss', loss)],
      body: `
@compute @workgroup_size(1)
fn main() {
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < params.rows; i++) { sum += load_each(i); }
  store_loss(0u, vec4<f32>(sum.x / max(sum.y, 1.0), 0.0, 0.0, 0.0));
}`,
      workgroups: [1, 1, 1],
      flops: rows * 2,
      bytes: rows * 16,
    },
  ];
}

/** @param dLoss [1]. */
export function crossEntropyBackward<B>(
  c: CrossEntropy<B>,
  dLoss: Operand<B>,
  dx: Operand<B>,
): KernelCall<B>[] {
  const rows = rowsOf(c.logits.shape);
  const scale = c.temporary([1], 'f32');
  return [
    {
      label: 'crossEntropy.backward.count',
      uniforms: { rows: u32(rows), channels: u32(channelsOf(c.logits.shape)) },
      buffers: [labels(c.labels), read('d_loss', dLoss), write('scale', scale)],
      body: `
@compute @workgroup_size(1)
fn main() {
  var known = 0.0;
  for (var i = 0u; i < params.rows; i++) { known += select(0.0, 1.0, labels[i] < params.channels); }
  store_scale(0u, load_d_loss(0u) / max(known, 1.0));
}`,
      workgroups: [1, 1, 1],
      flops: rows,
      bytes: rows * 4,
    },
    {
      label: 'crossEntropy.backward',
      uniforms: uniforms(c.logits),
      buffers: [read('x', c.logits), labels(c.labels), read('scale', scale), write('dx', dx)],
      body: `${REAL}
${eachItem(SIZE)}${ROW}
  let label = labels[i];
  let scale = select(0.0, load_scale(0u).x, label < params.channels);
  for (var q = 0u; q < params.channel_quads; q++) {
    let place = vec4<u32>(q * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let p = exp(load_x(first + q) - most) / total - select(vec4<f32>(0.0), vec4<f32>(1.0), place == vec4<u32>(label));
    store_dx(first + q, select(vec4<f32>(0.0), p * scale, real(q)));
  }
}`,
      workgroups: grid(rows, SIZE),
      flops: quadsOf(c.logits.shape) * 4 * 8,
      bytes: quadsOf(c.logits.shape) * 32,
    },
  ];
}
