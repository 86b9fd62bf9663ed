/**
 * Input gradient as implicit GEMM for software adapters, the twin of subgroup.ts: one subgroup of L lanes a
 * workgroup computes L·W input channels for B·L pixels of one class of the stride (see grad_input.ts). Depth is
 * taps × output channels. A lane takes the weights of its own W channels, W quads that lie along the output
 * channels: turned round in registers, they serve like the forward kernel's columns, so that no transposed copy
 * of the weights is ever made.
 *
 * The pictures of a batch are the innermost axis of the pixels: a tile then has one or two places of the map, and taps that reach none of them are left out. Pixels near the border have few taps: with all nine
 * for everybody O-Net's 3×3 layers without padding would cost 1.2 to 1.8 times their products.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, largestClass, REACHING } from './grad_geometry.js';
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
  const body = `
${DIVIDE}
${CLASSES}${REACHING}
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
  let end = min(first + ${lanes * blocks}u, pixels);
  let more = first + ${lanes}u < pixels;
  let wanted = group.z / classes * ${lanes}u + lane;
  let channel = min(wanted, per_row - 1u) * ${width}u;
${lines(blocks, (b) => `  let m${b} = min(first + ${b * lanes}u + lane, pixels - 1u);`)}
${lines(blocks * lanes, (i) => `  var s${i} = ${F}(0.0);`)}
${tapLoop(tile)}
  if (wanted >= per_row) { return; }
  for (var m = first; m < end; m += ${STORED}u) {
${lines(STORED, (i) => `    if (m + ${i}u < pixels) { store(place(m + ${i}u, rows, columns, cy, cx) * per_row + wanted, s${i}); }`)}
${lines(lanes * blocks - STORED, (i) => `    s${i} = s${i + STORED};`)}
  }
}
${PLACES}
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

function tapLoop({ lanes, width, blocks }: SubgroupTile): string {
  const turned = (j: number) => `${vec(width, 'f32')}(${range(width).map((i) => `r${i}[${j}]`)})`;
  return `${lines(blocks, (b) => `  let at${b} = pixel(m${b}, rows, columns);`)}
  // Rows and columns that the tile's pixels are in, and from them the taps that reach any.
  let head = pixel(first, rows, columns);
  let tail = pixel(end - 1u, rows, columns);
  let low = select(vec2<u32>(head.y, 0u), head.yz, head.y == tail.y);
  let high = select(vec2<u32>(tail.y, columns - 1u), tail.yz, head.y == tail.y);
  let first_kx = reaching_tap(cx + params.padding, low.y, params.kernel_w, params.out_w);
  for (var ky = reaching_tap(cy + params.padding, low.x, params.kernel_h, params.out_h); ky < params.kernel_h; ky += params.tap_step) {
    let oy = source(cy + params.padding, ky);
    if (i32(high.x + oy) < 0) { break; }
    for (var kx = first_kx; kx < params.kernel_w; kx += params.tap_step) {
      let ox = source(cx + params.padding, kx);
      if (i32(high.y + ox) < 0) { break; }
${lines(
  blocks,
  (b) => `      let in${b} = at${b}.y + oy < params.out_h && at${b}.z + ox < params.out_w;
      let p${b} = select(0u, ((at${b}.x * params.out_h + at${b}.y + oy) * params.out_w + at${b}.z + ox) * params.out_q, in${b});`,
)}
      let at = ((ky * params.kernel_w + kx) * params.in_q * 4u + channel) * params.out_q;
      for (var c = 0u; c < params.out_q; c++) {
${lines(width, (i) => `        let r${i} = weight[at + ${i}u * params.out_q + c];`)}
${lines(4, (j) => `        let w${j} = ${turned(j)};`)}
${multiplyAdd(lanes, width, blocks, (b) => `        let x${b} = select(vec4<f32>(0.0), load_dy(p${b} + c), in${b});`)}
      }
    }
  }`;
}

/** `pixel`: picture, and row and column within the class, of a pixel; `place`: where it lies in the map. */
const PLACES = `
fn pixel(m: u32, rows: u32, columns: u32) -> vec3<u32> {
  let at = divide(m, params.batch, 1.0 / f32(params.batch));
  let row = divide(at, columns, 1.0 / f32(columns));
  return vec3<u32>(m - at * params.batch, row, at - row * columns);
}
fn place(m: u32, rows: u32, columns: u32, cy: u32, cx: u32) -> u32 {
  let p = pixel(m, rows, columns);
  return (p.x * params.in_h + p.y * params.stride + cy) * params.in_w + p.z * params.stride + cx;
}`;

/** Stores `v`, a lane's `width` channels, at `i`. */
function storeLane(name: string, width: number, dtype: 'f32' | 'f16'): string {
  if (dtype === 'f32') return `  ${name}[i] = v;`;
  const F = vec(width, 'f32');
  return `  let c = clamp(v, ${F}(-65504.0), ${F}(65504.0));
  ${name}[i] = ${width === 4 ? 'vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw))' : 'pack2x16float(c)'};`;
}
