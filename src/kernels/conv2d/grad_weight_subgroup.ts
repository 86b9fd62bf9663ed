/**
 * Weight gradient as implicit GEMM for software adapters (see subgroup.ts for what such a device wants): one
 * subgroup of L lanes a workgroup computes 4·B·L rows (tap and input channel) by L·W columns (output channels) of
 * dw over a chunk of the pixels.
 *
 * A lane holds W output channels of every row of the tile, and loads for each pixel those channels of dy and B
 * quads of x: lane l's quad is that of row quad l, at the pixel its own tap points to. Taps and channels are one
 * axis, so that a first layer with three channels fills the lanes as well as one with 512. `subgroupShuffle`
 * hands the quads of x round: 4·B + W loaded numbers a lane feed 4·B·L·W multiply-adds. Accumulators spill to L1,
 * so several pixels are added to one in a row.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, quadsOf, read } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { handed, laneElement, lines, range, type SubgroupTile, vec } from './subgroup.js';

/** Pixels of one turn of the loop: four bring a few hundredths more and take twice as long to compile. */
const STEP = 2;

export function gradWeightSubgroup<B>(
  call: GradWeightCall<B>,
  partial: B,
  plan: SplitPlan & { tile: SubgroupTile },
): KernelCall<B> {
  const s = call.shape;
  const { lanes, width, blocks } = plan.tile;
  const F = vec(width, 'f32');
  const rowQuads = plan.rows / 4;
  // A first layer of 3×3 has nine quads of rows and three channels in each: the rest of its one tile is not computed.
  const used = Math.min(lanes * blocks, rowQuads);
  const channels = range(Math.min(4, s.inChannels));
  const load = (p: number) => `    {
      let valid = m + ${p}u < to;
${lines(
  blocks,
  (b) => `      let iy${b} = oy * params.stride + dy${b};
      let ix${b} = ox * params.stride + dx${b};
      let in${b} = iy${b} < params.in_h && ix${b} < params.in_w && valid;
      x${b}_${p} = select(vec4<f32>(0.0), load_x(select(0u, ((n * params.in_h + iy${b}) * params.in_w + ix${b}) * params.in_q + c${b}, in${b})), in${b});`,
)}
      g${p} = load_g(select(0u, (m + ${p}u) * per_row + column, valid));
      ox++;
      if (ox == params.out_w) { ox = 0u; oy++; if (oy == params.out_h) { oy = 0u; n++; } }
    }`;
  const multiplyAdd = (i: number) => {
    const b = Math.floor(i / lanes);
    const quad = range(STEP).map((p) => `let p${p} = ${handed(`x${b}_${p}`, i % lanes)};`);
    const sums = channels.map((j) => {
      const sum = range(STEP).reduce((acc, p) => `fma(${F}(p${p}[${j}]), g${p}, ${acc})`, `s${4 * i + j}`);
      return `s${4 * i + j} = ${sum};`;
    });
    return `    { ${quad.join(' ')} ${sums.join(' ')} }`;
  };
  const body = `
${loadLane('g', width, call.dy.dtype)}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.out_q * 4u / ${width}u;
  let wanted = group.y * ${lanes}u + lane;
  let column = min(wanted, per_row - 1u);
  let first = group.x * ${blocks * lanes}u;
${lines(
  blocks,
  (b) => `  let quad${b} = min(first + ${b * lanes}u + lane, params.row_quads - 1u);
  let tap${b} = quad${b} / params.in_q;
  let c${b} = quad${b} % params.in_q;
  let dy${b} = tap${b} / params.kernel_w * params.dilation - params.padding;
  let dx${b} = tap${b} % params.kernel_w * params.dilation - params.padding;
  ${lines(STEP, (p) => `var x${b}_${p}: vec4<f32>;`)}`,
)}
  ${lines(STEP, (p) => `var g${p}: ${F};`)}
${lines(4 * used, (i) => `  var s${i} = ${F}(0.0);`)}
  let begin = group.z * params.chunk;
  let to = min(begin + params.chunk, params.pixels);
  var ox = begin % params.out_w;
  var oy = begin / params.out_w % params.out_h;
  var n = begin / (params.out_w * params.out_h);
  for (var m = begin; m < to; m += ${STEP}u) {
${lines(STEP, load)}
${lines(used, multiplyAdd)}
  }
  if (wanted >= per_row) { return; }
  var at = (group.z * params.row_quads + first) * 4u * per_row + wanted;
  for (var q = first; q < min(first + ${used}u, params.row_quads); q++) {
${lines(4, (j) => `    partial[at] = s${j}; at += per_row;`)}
${lines(4 * (used - 1), (i) => `    s${i} = s${i + 4};`)}
  }
}`;
  return {
    label: `conv2d.grad_weight.subgroup ${width}×${blocks}${used < lanes * blocks ? ` of ${used}` : ''}`,
    directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
    uniforms: { ...geometryUniforms(s), row_quads: u32(rowQuads), chunk: u32(plan.chunk) },
    buffers: [
      read('x', call.x),
      { name: 'g', ref: call.dy.ref, element: laneElement(width, call.dy.dtype), write: false },
      { name: 'partial', ref: partial, element: F, write: true },
    ],
    body,
    workgroups: [ceilDiv(rowQuads, lanes * blocks), ceilDiv(plan.columns, lanes * width), plan.splits],
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}

/** Each operand once. */
export const gradWeightBytes = <B>({ x, dy }: GradWeightCall<B>, plan: SplitPlan): number =>
  quadsOf(x.shape) * bytesPerQuad(x.dtype) +
  quadsOf(dy.shape) * bytesPerQuad(dy.dtype) +
  plan.splits * plan.rows * plan.columns * 4;

/** `load_NAME(i)`: a lane's `width` channels. */
function loadLane(name: string, width: number, dtype: 'f32' | 'f16'): string {
  const value =
    dtype === 'f32'
      ? `${name}[i]`
      : width === 4
        ? `vec4<f32>(unpack2x16float(${name}[i].x), unpack2x16float(${name}[i].y))`
        : `unpack2x16float(${name}[i])`;
  return `fn load_${name}(i: u32) -> ${vec(width, 'f32')} { return ${value}; }`;
}
