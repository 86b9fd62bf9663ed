/**
 * Margin softmax over many classes: unit embeddings u [N, D], class centres W [C, D] that are normalised on the way,
 * labels y [N] (a label of C or more leaves its row out; n counts the others):
 *
 *   z = u·Wᵀ      c_j = z_j/‖w_j‖      v_j = s·c_j,  v_y = s·φ(c_y)  (margin.ts)      p = softmax(v)
 *   M = −1/n · Σ_i log p_iy            L = (1 − e^−M)^γ · M
 *
 *   dz_j = s·(p_j − [j = y])·φ′_j/‖w_j‖ · L′(M)/n
 *   du = dz·W          dw_j = (I − ŵ_j·ŵ_jᵀ)·(uᵀ·dz)_j
 *
 * The three products are the convolution's GEMMs. Between them N × C numbers are stored once: the forward pass leaves z,
 * one pass over it gives each row's maximum and sum (online log-sum-exp, in segments that are combined in order), and the
 * backward pass computes p again and puts dz in the place of z.
 *
 * Classes come in chunks, each with a weight, a z and norms of its own, so that nothing bound is larger than a device
 * allows.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { conv2dForward } from '../conv2d/forward.js';
import { conv2dGradInput } from '../conv2d/grad_input.js';
import type { Temporary } from '../conv2d/grad_types.js';
import { conv2dGradWeight } from '../conv2d/grad_weight.js';
import { planConv2d } from '../conv2d/plan.js';
import type { Conv2dShape } from '../conv2d/types.js';
import { add } from '../elementwise/forward.js';
import { channelsOf, eachItem, grid, type Operand, quads, quadsOf, read, rowsOf, write } from '../tensor.js';
import { type Margin, marginUniforms, marginWgsl } from './margin.js';

const SIZE = 8;
/** Quads that one invocation goes through in the pass over z, and the most invocations a row. */
const SEGMENT = 16;
const SEGMENTS = 64;

export interface MarginChunk<B> {
  /** Classes [first, first + classes). */
  first: number;
  classes: number;
  /** f32, layout dense: [Dp][Cp]. */
  weight: B;
  /** [N, classes]: z after the forward pass, dz after the backward pass. */
  logits: Operand<B>;
  /** [1, classes], 1/‖w‖. */
  inverse: Operand<B>;
}

export interface MarginLoss<B> {
  unit: Operand<B>;
  /** array<u32>, one a row. */
  labels: B;
  chunks: readonly MarginChunk<B>[];
  margin: Margin;
  /** [N, 4]: maximum and sum of the softmax, cross-entropy, 1 where the own class is the nearest. */
  rows: Operand<B>;
  /** [1, 4]: L, L′(M)/n, M, n. */
  head: Operand<B>;
  temporary: Temporary<B>;
}

const shapeOf = (batch: number, dimension: number, classes: number): Conv2dShape => ({
  batch,
  inHeight: 1,
  inWidth: 1,
  inChannels: dimension,
  outHeight: 1,
  outWidth: 1,
  outChannels: classes,
  kernelHeight: 1,
  kernelWidth: 1,
  stride: 1,
  padding: 0,
  dilation: 1,
  groups: 1,
});

const labelsOf = <B>(ref: B) => ({ name: 'labels', ref, element: 'u32', write: false });
const weightOf = <B>(ref: B) => ({ name: 'weight', ref, element: 'vec4<f32>', write: false });
const segmentsOf = (classes: number): number =>
  Math.min(SEGMENTS, Math.max(1, Math.ceil(quads(classes) / SEGMENT)));

const classesOf = (chunks: readonly { classes: number }[]): number =>
  chunks.reduce((sum, { classes }) => sum + classes, 0);

const LOWEST = '-3.4028234e38';
const PLACES = 'vec4<u32>(q * 4u) + vec4<u32>(0u, 1u, 2u, 3u)';

/** `loss` [1]. */
export function marginLoss<B>(c: MarginLoss<B>, loss: Operand<B>, traits: DeviceTraits): KernelCall<B>[] {
  const n = rowsOf(c.unit.shape);
  const dimension = channelsOf(c.unit.shape);
  const classes = classesOf(c.chunks);
  const total = c.chunks.reduce((sum, chunk) => sum + segmentsOf(chunk.classes), 0);
  const parts = c.temporary([n * total, 4], 'f32');
  const calls: KernelCall<B>[] = [];
  let segment = 0;
  for (const chunk of c.chunks) {
    const shape = shapeOf(n, dimension, chunk.classes);
    calls.push(inverseNorms(chunk, dimension));
    calls.push(
      ...conv2dForward(
        { shape, x: c.unit, weight: chunk.weight, activation: 'none', y: chunk.logits },
        planConv2d(shape, traits),
        traits,
      ),
    );
    calls.push(partialRows(c, chunk, parts, { segment, total }));
    segment += segmentsOf(chunk.classes);
  }
  calls.push(combineRows(c, parts, total, classes), mean(c, loss, classes));
  return calls;
}

function inverseNorms<B>({ weight, classes, inverse }: MarginChunk<B>, dimension: number): KernelCall<B> {
  const count = quads(classes);
  return {
    label: 'marginLoss.inverseNorms',
    uniforms: { count: u32(count), depth: u32(dimension), classes: u32(classes) },
    buffers: [weightOf(weight), write('inverse', inverse)],
    body: `${eachItem(SIZE)}
  let q = i;
  var sum = vec4<f32>(0.0);
  for (var k = 0u; k < params.depth; k++) { let w = weight[k * params.count + q]; sum += w * w; }
  let real = (${PLACES}) < vec4<u32>(params.classes);
  store_inverse(q, select(vec4<f32>(0.0), 1.0 / max(sqrt(sum), vec4<f32>(1e-12)), real));
}`,
    workgroups: grid(count, SIZE),
    flops: 2 * dimension * classes,
    bytes: 4 * dimension * classes,
  };
}

/** Of each segment of each row: maximum and sum, the nearest other class, the own one (both cosines, LOWEST if absent). */
function partialRows<B>(
  { labels, margin }: MarginLoss<B>,
  { logits, inverse, first, classes }: MarginChunk<B>,
  parts: Operand<B>,
  { segment, total }: { segment: number; total: number },
): KernelCall<B> {
  const segments = segmentsOf(classes);
  const count = rowsOf(logits.shape) * segments;
  return {
    label: 'marginLoss.segments',
    uniforms: {
      count: u32(count),
      segments: u32(segments),
      segment: u32(segment),
      total: u32(total),
      first: u32(first),
      classes: u32(classes),
      row_quads: u32(quads(classes)),
      ...marginUniforms(margin),
    },
    buffers: [read('z', logits), read('inverse', inverse), labelsOf(labels), write('parts', parts)],
    body: `${marginWgsl(margin)}
${eachItem(SIZE)}
  let row = i / params.segments;
  let part = i % params.segments;
  let own = vec4<u32>(labels[row] - params.first);
  var most = ${LOWEST};
  var sum = 0.0;
  var nearest = ${LOWEST};
  var target_cosine = ${LOWEST};
  for (var q = part; q < params.row_quads; q += params.segments) {
    let place = ${PLACES};
    let real = place < vec4<u32>(params.classes);
    let is_own = real & (place == own);
    let c = load_z(row * params.row_quads + q) * load_inverse(q);
    let others = select(vec4<f32>(${LOWEST}), c, real & !is_own);
    nearest = max(nearest, max(max(others.x, others.y), max(others.z, others.w)));
    var v = c * params.scale;
    if (any(is_own)) {
      target_cosine = dot(select(vec4<f32>(0.0), c, is_own), vec4<f32>(1.0));
      v = select(v, vec4<f32>(margin(target_cosine).x * params.scale), is_own);
    }
    v = select(vec4<f32>(${LOWEST}), v, real);
    let higher = max(most, max(max(v.x, v.y), max(v.z, v.w)));
    sum = sum * exp(most - higher) + dot(select(vec4<f32>(0.0), exp(v - higher), real), vec4<f32>(1.0));
    most = higher;
  }
  store_parts(row * params.total + params.segment + part, vec4<f32>(most, sum, nearest, target_cosine));
}`,
    workgroups: grid(count, SIZE),
    flops: quadsOf(logits.shape) * 4 * 6,
    bytes: quadsOf(logits.shape) * 16,
  };
}

function combineRows<B>(
  { labels, margin, rows }: MarginLoss<B>,
  parts: Operand<B>,
  total: number,
  classes: number,
): KernelCall<B> {
  const count = rowsOf(rows.shape);
  return {
    label: 'marginLoss.rows',
    uniforms: { count: u32(count), total: u32(total), classes: u32(classes), ...marginUniforms(margin) },
    buffers: [read('parts', parts), labelsOf(labels), write('rows', rows)],
    body: `${marginWgsl(margin)}
${eachItem(SIZE)}
  var top = load_parts(i * params.total);
  for (var k = 1u; k < params.total; k++) { top = max(top, load_parts(i * params.total + k)); }
  var sum = 0.0;
  for (var k = 0u; k < params.total; k++) { let p = load_parts(i * params.total + k); sum += p.y * exp(p.x - top.x); }
  if (labels[i] >= params.classes) { store_rows(i, vec4<f32>(top.x, sum, 0.0, 0.0)); return; }
  let entropy = top.x + log(sum) - params.scale * margin(top.w).x;
  store_rows(i, vec4<f32>(top.x, sum, entropy, select(0.0, 1.0, top.w >= top.z)));
}`,
    workgroups: grid(count, SIZE),
    flops: count * total * 6,
    bytes: count * total * 32,
  };
}

function mean<B>(
  { labels, rows, head, margin }: MarginLoss<B>,
  loss: Operand<B>,
  classes: number,
): KernelCall<B> {
  const n = rowsOf(rows.shape);
  return {
    label: 'marginLoss.mean',
    uniforms: { rows: u32(n), classes: u32(classes), gamma: f32(margin.gamma) },
    buffers: [labelsOf(labels), read('each', rows), write('head', head), write('loss', loss)],
    body: `
@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  var n = 0.0;
  for (var i = 0u; i < params.rows; i++) {
    sum += load_each(i).z;
    n += select(0.0, 1.0, labels[i] < params.classes);
  }
  n = max(n, 1.0);
  let m = sum / n;
  var value = m;
  var slope = 1.0;
${margin.gamma > 0 ? FOCAL : ''}
  store_head(0u, vec4<f32>(value, slope / n, m, n));
  store_loss(0u, vec4<f32>(value, 0.0, 0.0, 0.0));
}`,
    workgroups: [1, 1, 1],
    flops: 2 * n,
    bytes: 16 * n,
  };
}

const FOCAL = `  let p = exp(-m);
  let rest = max(1.0 - p, 1e-12);
  value = pow(rest, params.gamma) * m;
  slope = pow(rest, params.gamma) + params.gamma * pow(rest, params.gamma - 1.0) * p * m;`;

/**
 * @param dLoss [1]. @param dUnit [N, D]. @param dWeights one a chunk, in the layout of its weight.
 */
export function marginLossBackward<B>(
  c: MarginLoss<B>,
  dLoss: Operand<B>,
  dUnit: Operand<B>,
  dWeights: readonly B[],
  traits: DeviceTraits,
): KernelCall<B>[] {
  const n = rowsOf(c.unit.shape);
  const dimension = channelsOf(c.unit.shape);
  const calls: KernelCall<B>[] = [];
  let sum: Operand<B> | undefined;
  for (const [k, chunk] of c.chunks.entries()) {
    const shape = shapeOf(n, dimension, chunk.classes);
    const last = k === c.chunks.length - 1;
    calls.push(logitsBackward(c, chunk, dLoss));
    const { temporary } = c;
    calls.push(
      ...conv2dGradWeight({ shape, x: c.unit, dy: chunk.logits, dw: dWeights[k], temporary }, traits),
      throughNorm(chunk, dWeights[k], dimension),
    );
    const share = sum || !last ? temporary(dUnit.shape, 'f32') : dUnit;
    calls.push(...conv2dGradInput({ shape, dy: chunk.logits, weight: chunk.weight, dx: share }, traits));
    if (sum) {
      const next = last ? dUnit : temporary(dUnit.shape, 'f32');
      calls.push(...add(sum, share, next));
      sum = next;
    } else sum = share;
  }
  return calls;
}

/** dz in the place of z. */
function logitsBackward<B>(
  { labels, margin, rows, head, chunks }: MarginLoss<B>,
  { logits, inverse, first, classes }: MarginChunk<B>,
  dLoss: Operand<B>,
): KernelCall<B> {
  const count = quadsOf(logits.shape);
  return {
    label: 'marginLoss.backward.logits',
    uniforms: {
      count: u32(count),
      first: u32(first),
      classes: u32(classes),
      all_classes: u32(classesOf(chunks)),
      row_quads: u32(quads(classes)),
      ...marginUniforms(margin),
    },
    buffers: [
      write('z', logits),
      read('inverse', inverse),
      labelsOf(labels),
      read('each', rows),
      read('head', head),
      read('d_loss', dLoss),
    ],
    body: `${marginWgsl(margin)}
${eachItem(SIZE)}
  let row = i / params.row_quads;
  let q = i % params.row_quads;
  let place = ${PLACES};
  let real = place < vec4<u32>(params.classes);
  let is_own = real & (place == vec4<u32>(labels[row] - params.first));
  let inverse = load_inverse(q);
  let c = load_z(i) * inverse;
  let each = load_each(row);
  var v = c * params.scale;
  var slope = vec4<f32>(1.0);
  var hit = vec4<f32>(0.0);
  if (any(is_own)) {
    let m = margin(dot(select(vec4<f32>(0.0), c, is_own), vec4<f32>(1.0)));
    v = select(v, vec4<f32>(m.x * params.scale), is_own);
    slope = select(slope, vec4<f32>(m.y), is_own);
    hit = select(hit, vec4<f32>(1.0), is_own);
  }
  let p = exp(v - each.x) / each.y;
  let known = labels[row] < params.all_classes;
  let factor = select(0.0, params.scale * load_head(0u).y * load_d_loss(0u).x, known);
  store_z(i, select(vec4<f32>(0.0), (p - hit) * slope * inverse * factor, real));
}`,
    workgroups: grid(count, SIZE),
    flops: count * 4 * 8,
    bytes: count * 32,
  };
}

/** dw ← dw − ŵ·(ŵ·dw), for each class. */
function throughNorm<B>({ weight, classes }: MarginChunk<B>, dw: B, dimension: number): KernelCall<B> {
  const count = quads(classes);
  return {
    label: 'marginLoss.backward.norm',
    uniforms: { count: u32(count), depth: u32(dimension) },
    buffers: [weightOf(weight), { name: 'dw', ref: dw, element: 'vec4<f32>', write: true }],
    body: `${eachItem(SIZE)}
  var along = vec4<f32>(0.0);
  var square = vec4<f32>(1e-24);
  for (var k = 0u; k < params.depth; k++) {
    let w = weight[k * params.count + i];
    along += w * dw[k * params.count + i];
    square += w * w;
  }
  let back = along / square;
  for (var k = 0u; k < params.depth; k++) {
    let at = k * params.count + i;
    dw[at] = dw[at] - weight[at] * back;
  }
}`,
    workgroups: grid(count, SIZE),
    flops: 6 * dimension * classes,
    bytes: 12 * dimension * classes,
  };
}
