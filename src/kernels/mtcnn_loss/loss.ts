/**
 * MTCNN's loss over a batch of samples that each teach some of three tasks (Zhang, Zhang, Li & Qiao 2016, section 2.3):
 *
 *   c_i = −log softmax(logits_i)[face_i]     where the sample is for classification
 *   b_i = |box_i − box target_i|²            where it has a box
 *   p_i = Σ h(points_i − points target_i)    where it has points; h(d) = d² up to β, β·(2|d| − β) beyond
 *   L   = wc·mean over the hardest c_i + wb·mean b_i + wp·mean p_i
 *
 * The paper's points are squared throughout; with β (Huber's loss) the few that are far off (profiles, wrong labels) do not
 * outweigh the rest, and what is asked for is the mean distance, not the mean square. Hardest: the ⌈keep·n⌉ largest of the n class losses of the batch, of equal ones the first. Only they have a gradient
 * (online hard sample mining). A mean over no sample is 0.
 *
 * logits [N, 2] (background, face), boxes [N, 4], points [N, 10] (a map [N, 1, 1, C] will do), tasks array<u32> of the
 * bits in tasks.ts. Three passes, all deterministic: what each row loses; each row's share in the loss, its rank among
 * the class losses found by counting; the sum. The backward pass needs only the shares. A batch is a few hundred rows:
 * counting compares every row with every other and is still no work beside a convolution.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, type Operand, quadsOf, read, rowsOf, write } from '../tensor.js';
import { type MtcnnLossOptions, TASK } from './tasks.js';

const SIZE = 8;

export interface MtcnnLossCall<B> {
  logits: Operand<B>;
  box: Operand<B>;
  points?: Operand<B>;
  /** array<u32>, one a row. */
  tasks: B;
  boxTarget: Operand<B>;
  pointsTarget?: Operand<B>;
}

export interface MtcnnLossOutputs<B> {
  /** [1] */
  loss: Operand<B>;
  /** [N, 4]: class, box and points loss of each row where it has that task, else 0; then 1 if classified rightly. */
  rows: Operand<B>;
  /** [N, 4]: what each of the three counts in the loss. */
  shares: Operand<B>;
}

const tasks = <B>(ref: B) => ({ name: 'tasks', ref, element: 'u32', write: false });

const SQUARED = `
fn squared(d: vec4<f32>) -> f32 { return dot(d, d); }`;

const HUBER = `
fn huber(d: vec4<f32>) -> f32 {
  let near = min(abs(d), vec4<f32>(params.beta));
  return dot(near, 2.0 * abs(d) - near);
}`;

export function mtcnnLoss<B>(
  c: MtcnnLossCall<B>,
  o: MtcnnLossOptions,
  { loss, rows, shares }: MtcnnLossOutputs<B>,
): KernelCall<B>[] {
  const count = rowsOf(c.logits.shape);
  const hasPoints = c.points !== undefined && c.pointsTarget !== undefined;
  return [
    {
      label: 'mtcnnLoss.rows',
      uniforms: { count: u32(count), beta: f32(o.pointsBeta) },
      buffers: [
        read('logits', c.logits),
        read('box', c.box),
        read('box_target', c.boxTarget),
        ...(hasPoints ? [read('points', c.points!), read('points_target', c.pointsTarget!)] : []),
        tasks(c.tasks),
        write('rows', rows),
      ],
      body: `${SQUARED}${hasPoints ? HUBER : ''}
${eachItem(SIZE)}
  let task = tasks[i];
  let logits = load_logits(i);
  let face = (task & ${TASK.face}u) != 0u;
  // How far the wrong class is ahead; log(1 + exp(d)) without overflow.
  let d = select(logits.y - logits.x, logits.x - logits.y, face);
  let lost = max(d, 0.0) + log(1.0 + exp(-abs(d)));
  var points_lost = 0.0;
${hasPoints ? '  for (var q = 0u; q < 3u; q++) { points_lost += huber(load_points(3u * i + q) - load_points_target(3u * i + q)); }' : ''}
  let all = vec4<f32>(lost, squared(load_box(i) - load_box_target(i)), points_lost, select(0.0, 1.0, d < 0.0));
  let has = vec4<u32>(task) & vec4<u32>(${TASK.classify}u, ${TASK.box}u, ${TASK.points}u, ${TASK.classify}u);
  store_rows(i, select(vec4<f32>(0.0), all, has != vec4<u32>(0u)));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 60,
      bytes: count * 160,
    },
    {
      label: 'mtcnnLoss.shares',
      uniforms: {
        count: u32(count),
        keep: f32(o.keep),
        class_weight: f32(o.classWeight),
        box_weight: f32(o.boxWeight),
        points_weight: f32(hasPoints ? o.pointsWeight : 0),
      },
      buffers: [read('rows', rows), tasks(c.tasks), write('shares', shares)],
      body: `${eachItem(SIZE)}
  let lost = load_rows(i).x;
  var number = vec3<f32>(0.0);
  var harder = 0u;
  for (var j = 0u; j < params.count; j++) {
    let has = (vec3<u32>(tasks[j]) & vec3<u32>(${TASK.classify}u, ${TASK.box}u, ${TASK.points}u)) != vec3<u32>(0u);
    number += select(vec3<f32>(0.0), vec3<f32>(1.0), has);
    let other = load_rows(j).x;
    if (has.x && (other > lost || (other == lost && j < i))) { harder++; }
  }
  // A little less before rounding up, so that 0.7 · 10 is 7 in f32 too.
  let kept = ceil(params.keep * number.x - 1e-3);
  let has = (vec3<u32>(tasks[i]) & vec3<u32>(${TASK.classify}u, ${TASK.box}u, ${TASK.points}u)) != vec3<u32>(0u);
  let counts = vec3<bool>(has.x && f32(harder) < kept, has.y, has.z);
  let share = vec3<f32>(params.class_weight, params.box_weight, params.points_weight) / max(vec3<f32>(kept, number.yz), vec3<f32>(1.0));
  store_shares(i, vec4<f32>(select(vec3<f32>(0.0), share, counts), 0.0));
}`,
      workgroups: grid(count, SIZE),
      flops: count * count * 4,
      bytes: count * 40,
    },
    {
      label: 'mtcnnLoss.sum',
      uniforms: { count: u32(count) },
      buffers: [read('rows', rows), read('shares', shares), write('loss', loss)],
      body: `
@compute @workgroup_size(1)
fn main() {
  var sum = 0.0;
  for (var i = 0u; i < params.count; i++) { sum += dot(load_rows(i), load_shares(i)); }
  store_loss(0u, vec4<f32>(sum, 0.0, 0.0, 0.0));
}`,
      workgroups: [1, 1, 1],
      flops: count * 8,
      bytes: count * 32,
    },
  ];
}

export interface MtcnnLossGradients<B> {
  logits: Operand<B>;
  box: Operand<B>;
  points?: Operand<B>;
}

/**
 *   dlogits_i = share·(softmax(logits_i) − onehot)·dL     dbox_i = share·2·(value − target)·dL
 *   dpoints_i = share·2·clamp(value − target, −β, β)·dL
 *
 * @param shares as the forward pass left them.
 * @param dLoss [1].
 */
export function mtcnnLossBackward<B>(
  c: MtcnnLossCall<B>,
  o: MtcnnLossOptions,
  shares: Operand<B>,
  dLoss: Operand<B>,
  d: MtcnnLossGradients<B>,
): KernelCall<B>[] {
  const count = rowsOf(c.logits.shape);
  const calls: KernelCall<B>[] = [
    {
      label: 'mtcnnLoss.backward',
      uniforms: { count: u32(count) },
      buffers: [
        read('logits', c.logits),
        read('box', c.box),
        read('box_target', c.boxTarget),
        tasks(c.tasks),
        read('shares', shares),
        read('d_loss', dLoss),
        write('d_logits', d.logits),
        write('d_box', d.box),
      ],
      body: `${eachItem(SIZE)}
  let share = load_shares(i) * load_d_loss(0u).x;
  let logits = load_logits(i);
  let face = 1.0 / (1.0 + exp(logits.x - logits.y));
  let off = face - select(0.0, 1.0, (tasks[i] & ${TASK.face}u) != 0u);
  store_d_logits(i, vec4<f32>(-off, off, 0.0, 0.0) * share.x);
  store_d_box(i, 2.0 * share.y * (load_box(i) - load_box_target(i)));
}`,
      workgroups: grid(count, SIZE),
      flops: count * 20,
      bytes: count * 112,
    },
  ];
  if (c.points && c.pointsTarget && d.points)
    calls.push({
      label: 'mtcnnLoss.backward.points',
      uniforms: { count: u32(quadsOf(c.points.shape)), beta: f32(o.pointsBeta) },
      buffers: [
        read('points', c.points),
        read('points_target', c.pointsTarget),
        read('shares', shares),
        read('d_loss', dLoss),
        write('d_points', d.points),
      ],
      body: `${eachItem(SIZE)}
  let share = load_shares(i / 3u).z * load_d_loss(0u).x;
  let beta = vec4<f32>(params.beta);
  store_d_points(i, 2.0 * share * clamp(load_points(i) - load_points_target(i), -beta, beta));
}`,
      workgroups: grid(quadsOf(c.points.shape), SIZE),
      flops: quadsOf(c.points.shape) * 12,
      bytes: quadsOf(c.points.shape) * 48,
    });
  return calls;
}
