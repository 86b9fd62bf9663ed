/**
 * Input gradient as implicit GEMM for software adapters, the twin of subgroup.ts: one subgroup of L lanes a
 * workgroup computes L·W input channels for B·L pixels of one class of the stride (see grad_input.ts). Depth is
 * taps × output channels. A lane takes the weights of its own W channels, W quads that lie along the output
 * channels: turned round in registers, they serve like the forward kernel's columns, so that no transposed copy
 * of the weights is ever made.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, largestClass } from './grad_geometry.js';
import type { GradInputCall } from './grad_types.js';
import { laneElement, lines, multiplyAdd, range, type SubgroupTile, vec } from './subgroup.js';

/** Pixels stored by one turn of the last loop: stores are written once for four, and the accumulators move down past them. */
const STORED = 4;

export function gradInputSubgroup<B>(call: GradInputCall<B>, tile: SubgroupTile): KernelCall<B>[] {
  const s = call.shape;
  const { lanes, width, blocks } = tile;
  const F = vec(width, 'f32');
  const channelTiles = ceilDiv(quads(s.inChannels) * 4, lanes * width);
  const pixelTiles = ceilDiv(largestClass(s), lanes * blocks);
  const turned = (j: number) =>
    `let w${j} = ${F}(${range(width)
      .map((i) => `r${i}[${j}]`)
      .join(', ')});`;
  const body = `
${DIVIDE}
${CLASSES}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.in_q * 4u / ${width}u;
  let classes = params.stride * params.stride;
  let cy = group.z % classes / params.stride;
  let cx = group.z % params.stride;
  let rows = class_size(params.in_h, cy);
  let columns = class_size(params.in_w, cx);
  let pixels = params.batch * rows * columns;
  let first = (group.x + group.y * 65535u) * ${lanes * blocks}u;
  if (first >= pixels) { return; }
  let per_width = 1.0 / f32(columns);
  let per_map = 1.0 / f32(columns * rows);
  let wanted = group.z / classes * ${lanes}u + lane;
  let channel = min(wanted, per_row - 1u) * ${width}u;
${lines(
  blocks,
  (b) => `  let m${b} = min(first + ${b * lanes}u + lane, pixels - 1u);
  let row${b} = divide(m${b}, columns, per_width);
  let n${b} = divide(m${b}, columns * rows, per_map);
  let tx${b} = m${b} - row${b} * columns;
  let ty${b} = row${b} - n${b} * rows;`,
)}
${lines(blocks * lanes, (i) => `  var s${i} = ${F}(0.0);`)}
  let first_kx = first_tap(cx + params.padding, params.kernel_w);
  for (var ky = first_tap(cy + params.padding, params.kernel_h); ky < params.kernel_h; ky += params.tap_step) {
    let oy = source(cy + params.padding, ky);
    for (var kx = first_kx; kx < params.kernel_w; kx += params.tap_step) {
      let ox = source(cx + params.padding, kx);
${lines(
  blocks,
  (b) => `      let in${b} = ty${b} + oy < params.out_h && tx${b} + ox < params.out_w;
      let p${b} = select(0u, ((n${b} * params.out_h + ty${b} + oy) * params.out_w + tx${b} + ox) * params.out_q, in${b});`,
)}
      let at = ((ky * params.kernel_w + kx) * params.in_q * 4u + channel) * params.out_q;
      for (var c = 0u; c < params.out_q; c++) {
${lines(width, (i) => `        let r${i} = weight[at + ${i}u * params.out_q + c];`)}
${lines(4, (j) => `        ${turned(j)}`)}
${lines(blocks, (b) => `        let x${b} = select(vec4<f32>(0.0), load_dy(p${b} + c), in${b});`)}
${multiplyAdd(lanes, width, blocks)}
      }
    }
  }
  if (wanted >= per_row) { return; }
  for (var m = first; m < min(first + ${lanes * blocks}u, pixels); m += ${STORED}u) {
${lines(STORED, (i) => `    if (m + ${i}u < pixels) { store(place(m + ${i}u, rows, columns, cy, cx) * per_row + wanted, s${i}); }`)}
${lines(lanes * blocks - STORED, (i) => `    s${i} = s${i + STORED};`)}
  }
}
fn place(m: u32, rows: u32, columns: u32, cy: u32, cx: u32) -> u32 {
  if (params.stride == 1u) { return m; }
  let row = m / columns;
  let n = row / rows;
  let y = (row - n * rows) * params.stride + cy;
  return (n * params.in_h + y) * params.in_w + (m - row * columns) * params.stride + cx;
}
fn store(i: u32, v: ${F}) {
${storeLane('dx', width, call.dx.dtype)}
}`;
  return [
    {
      label: `conv2d.grad_input.subgroup ${width}×${blocks}`,
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: gradInputUniforms(s),
      buffers: [
        read('dy', call.dy),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        { name: 'dx', ref: call.dx.ref, element: laneElement(width, call.dx.dtype), write: true },
      ],
      body,
      workgroups: [
        Math.min(pixelTiles, 65535),
        ceilDiv(pixelTiles, 65535),
        channelTiles * s.stride * s.stride,
      ],
      flops: convFlops(s),
      bytes: gradInputBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}

/** Stores `v`, a lane's `width` channels, at `i`. */
function storeLane(name: string, width: number, dtype: 'f32' | 'f16'): string {
  if (dtype === 'f32') return `  ${name}[i] = v;`;
  const F = vec(width, 'f32');
  return `  let c = clamp(v, ${F}(-65504.0), ${F}(65504.0));
  ${name}[i] = ${width === 4 ? 'vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw))' : 'pack2x16float(c)'};`;
}
