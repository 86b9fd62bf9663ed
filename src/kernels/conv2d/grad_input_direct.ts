/**
 * Input gradient, one invocation a pixel and quad of input channels, for any shape in one group. The classes of
 * the stride (see grad_input.ts) are slices of the grid, so that neighbours take the same taps. Plain: what the
 * other variants are checked against, and the fallback of devices without subgroups of a known size.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { grid, quads, read, write } from '../tensor.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, largestClass, REACHING } from './grad_geometry.js';
import type { GradInputCall } from './grad_types.js';

const SIZE = 64;

/**
 * Opening of a kernel with an invocation a pixel and quad of dx: defines `quad`, the class offsets `cy`, `cx`, the
 * place `ty`, `tx` within the class, the picture `n` and the target `to`.
 */
export const eachClassPixel = `
@compute @workgroup_size(${SIZE})
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = gid.x + gid.y * groups.x * ${SIZE}u;
  let cy = gid.z / params.stride;
  let cx = gid.z % params.stride;
  let rows = class_size(params.in_h, cy);
  let columns = class_size(params.in_w, cx);
  if (i >= params.batch * rows * columns * params.in_q) { return; }
  let quad = i % params.in_q;
  let pixel = i / params.in_q;
  let tx = pixel % columns;
  let ty = pixel / columns % rows;
  let n = pixel / (columns * rows);
  let to = ((n * params.in_h + ty * params.stride + cy) * params.in_w + tx * params.stride + cx) * params.in_q + quad;`;

/** The grid of `eachClassPixel`. */
export function classGrid<B>(call: GradInputCall<B>): [number, number, number] {
  const s = call.shape;
  const [x, y] = grid(largestClass(s) * quads(s.inChannels), SIZE);
  return [x, y, s.stride * s.stride];
}

/** Loops over the taps that reach the pixel: `body` has the `tap` and the pixel `place` of dy. */
export const eachTap = (body: string): string => `
  for (var ky = reaching_tap(cy + params.padding, ty, params.kernel_h, params.out_h); ky < params.kernel_h; ky += params.tap_step) {
    let oy = ty + source(cy + params.padding, ky);
    if (oy >= params.out_h) { break; }
    for (var kx = reaching_tap(cx + params.padding, tx, params.kernel_w, params.out_w); kx < params.kernel_w; kx += params.tap_step) {
      let ox = tx + source(cx + params.padding, kx);
      if (ox >= params.out_w) { break; }
      let place = (n * params.out_h + oy) * params.out_w + ox;
      let tap = ky * params.kernel_w + kx;
${body}
    }
  }`;

export function gradInputDirect<B>(call: GradInputCall<B>): KernelCall<B>[] {
  const s = call.shape;
  const row = (j: number) => `dot(g, weight[w${j === 0 ? '' : ` + ${j}u * params.out_q`}])`;
  return [
    {
      label: 'conv2d.grad_input.direct',
      uniforms: gradInputUniforms(s),
      buffers: [
        read('dy', call.dy),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        write('dx', call.dx),
      ],
      body: `${CLASSES}${REACHING}
${eachClassPixel}
  var sum = vec4<f32>(0.0);
${eachTap(`      var w = (tap * params.in_q + quad) * 4u * params.out_q;
      for (var o = 0u; o < params.out_q; o++) {
        let g = load_dy(place * params.out_q + o);
        sum += vec4<f32>(${[0, 1, 2, 3].map(row).join(', ')});
        w++;
      }`)}
  store_dx(to, sum);
}`,
      workgroups: classGrid(call),
      flops: convFlops(s),
      bytes: gradInputBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}
