/**
 * Distillation: unit embeddings u [N, D] learn from a teacher's unit embeddings t [N, T]. A row of t that is all zero has
 * no teacher and takes no part; n counts the others.
 *
 *   R_ij = u_i·u_j − t_i·t_j                                   how the batch's similarities differ, R is symmetric
 *   L    = α/n · Σ_i (1 − u_i·t_i)  +  λ/n² · Σ_ij R_ij²
 *   du_i = −α/n · t_i  +  4λ/n² · Σ_j R_ij u_j
 *
 * The first term needs D = T (α = 0 otherwise); the second compares similarities only (Park, Kim, Lu & Cho 2019, in its
 * simplest form). R is kept for the backward pass: N² numbers. Sums run in a fixed order.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { Temporary } from '../conv2d/grad_types.js';
import { fold } from '../fold.js';
import { channelsOf, eachItem, grid, type Operand, quads, quadsOf, read, rowsOf, write } from '../tensor.js';

const SIZE = 8;
/** Of the workgroup that adds up a batch. */
const LANES = 64;

export interface DistillLoss<B> {
  unit: Operand<B>;
  teacher: Operand<B>;
  /** α, λ. */
  cosineWeight: number;
  relationWeight: number;
  /** [N, N], R. */
  residual: Operand<B>;
}

/** `rows` [N, 3]: 1 − u·t, Σ_j R², whether there is a teacher. `loss` [1]. */
export function distillLoss<B>(c: DistillLoss<B>, rows: Operand<B>, loss: Operand<B>): KernelCall<B>[] {
  const n = rowsOf(c.unit.shape);
  const unitQuads = quads(channelsOf(c.unit.shape));
  const teacherQuads = quads(channelsOf(c.teacher.shape));
  const sizes = { rows: u32(n), unit_quads: u32(unitQuads), teacher_quads: u32(teacherQuads) };
  const inputs = [read('unit', c.unit), read('teacher', c.teacher)];
  const total = fold(LANES, { sum: 'vec4<f32>' }, 'params.rows', '    sum += load_rows(k);');
  return [
    {
      label: 'distillLoss.residual',
      uniforms: { count: u32(n * quads(n)), row_quads: u32(quads(n)), ...sizes },
      buffers: [...inputs, write('residual', c.residual)],
      body: `${eachItem(SIZE)}
  let a = i / params.row_quads;
  let j = vec4<u32>((i % params.row_quads) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
  let inside = j < vec4<u32>(params.rows);
  let b = min(j, vec4<u32>(params.rows - 1u));
  var own = vec4<f32>(0.0);
  for (var q = 0u; q < params.unit_quads; q++) {
    let u = load_unit(a * params.unit_quads + q);
    let at = b * params.unit_quads + q;
    own += vec4<f32>(dot(u, load_unit(at.x)), dot(u, load_unit(at.y)), dot(u, load_unit(at.z)), dot(u, load_unit(at.w)));
  }
  var theirs = vec4<f32>(0.0);
  var lengths = vec4<f32>(0.0);
  var here = 0.0;
  for (var q = 0u; q < params.teacher_quads; q++) {
    let t = load_teacher(a * params.teacher_quads + q);
    let at = b * params.teacher_quads + q;
    let x = load_teacher(at.x); let y = load_teacher(at.y); let z = load_teacher(at.z); let w = load_teacher(at.w);
    theirs += vec4<f32>(dot(t, x), dot(t, y), dot(t, z), dot(t, w));
    lengths += vec4<f32>(dot(x, x), dot(y, y), dot(z, z), dot(w, w));
    here += dot(t, t);
  }
  let taught = inside & (lengths > vec4<f32>(0.0)) & vec4<bool>(here > 0.0);
  store_residual(i, select(vec4<f32>(0.0), own - theirs, taught));
}`,
      workgroups: grid(n * quads(n), SIZE),
      flops: 2 * n * n * 4 * (unitQuads + 2 * teacherQuads),
      bytes: quadsOf(c.residual.shape) * 16 + (quadsOf(c.unit.shape) + quadsOf(c.teacher.shape)) * 16,
    },
    {
      label: 'distillLoss.rows',
      uniforms: { count: u32(n), row_quads: u32(quads(n)), ...sizes },
      buffers: [...inputs, read('residual', c.residual), write('rows', rows)],
      body: `${eachItem(SIZE)}
  var along = 0.0;
  var taught = 0.0;
  for (var q = 0u; q < params.teacher_quads; q++) {
    let t = load_teacher(i * params.teacher_quads + q);
    // Of different lengths the two are not compared and α is zero.
    if (q < params.unit_quads) { along += dot(load_unit(i * params.unit_quads + q), t); }
    taught += dot(t, t);
  }
  var square = 0.0;
  for (var q = 0u; q < params.row_quads; q++) { let r = load_residual(i * params.row_quads + q); square += dot(r, r); }
  store_rows(i, select(vec4<f32>(0.0), vec4<f32>(1.0 - along, square, 1.0, 0.0), taught > 0.0));
}`,
      workgroups: grid(n, SIZE),
      flops: 2 * n * (n + 8 * teacherQuads),
      bytes: quadsOf(c.residual.shape) * 16 + (quadsOf(c.unit.shape) + quadsOf(c.teacher.shape)) * 16,
    },
    {
      label: 'distillLoss.mean',
      uniforms: { rows: u32(n), cosine: f32(c.cosineWeight), relation: f32(c.relationWeight) },
      buffers: [read('rows', rows), write('loss', loss)],
      body: `${total.memory}
@compute @workgroup_size(${LANES})
fn main(@builtin(local_invocation_index) lane: u32) {
${total.sum}
  let n = max(sum.z, 1.0);
  store_loss(0u, vec4<f32>(params.cosine * sum.x / n + params.relation * sum.y / (n * n), 0.0, 0.0, 0.0));
}`,
      workgroups: [1, 1, 1],
      flops: 4 * n,
      bytes: 16 * n,
    },
  ];
}

/** @param dLoss [1]. @param dUnit gradient of the unit embeddings, [N, D]. */
export function distillLossBackward<B>(
  c: DistillLoss<B>,
  dLoss: Operand<B>,
  dUnit: Operand<B>,
  temporary: Temporary<B>,
): KernelCall<B>[] {
  const n = rowsOf(c.unit.shape);
  const unitQuads = quads(channelsOf(c.unit.shape));
  const teacherQuads = quads(channelsOf(c.teacher.shape));
  const factors = temporary([1, 3], 'f32');
  const taught = fold(
    LANES,
    { n: 'f32' },
    'params.rows',
    `    var square = 0.0;
    for (var q = 0u; q < params.teacher_quads; q++) { let t = load_teacher(k * params.teacher_quads + q); square += dot(t, t); }
    n += select(0.0, 1.0, square > 0.0);`,
  );
  return [
    {
      label: 'distillLoss.backward.factors',
      uniforms: {
        rows: u32(n),
        teacher_quads: u32(teacherQuads),
        cosine: f32(c.cosineWeight),
        relation: f32(c.relationWeight),
      },
      buffers: [read('teacher', c.teacher), read('d_loss', dLoss), write('factors', factors)],
      body: `${taught.memory}
@compute @workgroup_size(${LANES})
fn main(@builtin(local_invocation_index) lane: u32) {
${taught.sum}
  n = max(n, 1.0);
  let d = load_d_loss(0u).x;
  store_factors(0u, vec4<f32>(-params.cosine * d / n, 4.0 * params.relation * d / (n * n), 0.0, 0.0));
}`,
      workgroups: [1, 1, 1],
      flops: 8 * n * teacherQuads,
      bytes: quadsOf(c.teacher.shape) * 16,
    },
    {
      label: 'distillLoss.backward',
      uniforms: {
        count: u32(n * unitQuads),
        row_quads: u32(quads(n)),
        rows: u32(n),
        unit_quads: u32(unitQuads),
        teacher_quads: u32(teacherQuads),
      },
      buffers: [
        read('unit', c.unit),
        read('teacher', c.teacher),
        read('residual', c.residual),
        read('factors', factors),
        write('d_unit', dUnit),
      ],
      body: `${eachItem(SIZE)}
  let row = i / params.unit_quads;
  let q = i % params.unit_quads;
  var sum = vec4<f32>(0.0);
  for (var p = 0u; p < params.row_quads; p++) {
    let r = load_residual(row * params.row_quads + p);
    let at = min(vec4<u32>(p * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.rows - 1u)) * params.unit_quads + q;
    // Past the last row r is zero.
    sum += r.x * load_unit(at.x) + r.y * load_unit(at.y) + r.z * load_unit(at.z) + r.w * load_unit(at.w);
  }
  let f = load_factors(0u);
  var d = f.y * sum;
  if (q < params.teacher_quads) { d += f.x * load_teacher(row * params.teacher_quads + q); }
  store_d_unit(i, d);
}`,
      workgroups: grid(n * unitQuads, SIZE),
      flops: 2 * n * n * unitQuads * 4,
      bytes: (quadsOf(c.unit.shape) * 2 + quadsOf(c.residual.shape)) * 16,
    },
  ];
}
