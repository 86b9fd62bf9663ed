/**
 * Input gradient by the GEMM of gemm.ts, for hardware GPUs: m is a pixel of one class of the stride (see
 * grad_input.ts), k a tap of that class and an output channel, n an input channel. The weights' quads lie along k, so
 * an invocation loads a 4×4 block of them and turns it round on the way to workgroup memory.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read, write } from '../tensor.js';
import { PLAIN, placesIn, quadLoad, type Tile } from './gemm.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, largestClass } from './grad_geometry.js';
import type { GradInputCall } from './grad_types.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';

const nextTap = (p: 'a' | 'b') =>
  `${p}kx += params.tap_step; if (${p}kx >= params.kernel_w) { ${p}kx = first_kx; ${p}ky += params.tap_step; }`;

/** Goes on by some quads in the depth: output channels first, then the taps of the class. */
const skip = (p: 'a' | 'b', by: string) =>
  `${p}ko += ${by}; while (${p}ko >= params.out_q) { ${p}ko -= params.out_q; ${nextTap(p)} }`;

export function gradInputTiled<B>(call: GradInputCall<B>, tile: Tile = PLAIN): KernelCall<B>[] {
  const s = call.shape;
  const { side } = tile;
  const at = placesIn(tile);
  const tiles = ceilDiv(largestClass(s), side);
  const columns = ceilDiv(quads(s.inChannels) * 4, side);
  const kernel = gemmKernel(tile, {
    functions: `${DIVIDE}
${quadLoad('dy', call.dy.dtype, tile)}
${CLASSES}
fn taps_of(first: u32, taps: u32) -> u32 {
  return select(0u, (taps - first + params.tap_step - 1u) / params.tap_step, first < taps);
}`,
    setup: `
  let classes = params.stride * params.stride;
  let cy = group.z % classes / params.stride;
  let cx = group.z % params.stride;
  let rows = class_size(params.in_h, cy);
  let columns = class_size(params.in_w, cx);
  let pixels = params.batch * rows * columns;
  let first = (group.x + group.y * 65535u) * ${side}u;
  if (first >= pixels) { return; }
  let first_quad = group.z / classes * ${side / 4}u;
  let first_ky = first_tap(cy + params.padding, params.kernel_h);
  let first_kx = first_tap(cx + params.padding, params.kernel_w);
  let depth = taps_of(first_ky, params.kernel_h) * taps_of(first_kx, params.kernel_w) * params.out_q;
  let per_width = 1.0 / f32(columns);
  let per_map = 1.0 / f32(columns * rows);
${lines(
  at.loads,
  (i) => `  let m${i} = min(first + ${at.aRow(i)}, pixels - 1u);
  let line${i} = divide(m${i}, columns, per_width);
  let n${i} = divide(m${i}, columns * rows, per_map);
  let tx${i} = m${i} - line${i} * columns;
  let ty${i} = line${i} - n${i} * rows;`,
)}
  // Where in the depth the next loads of dy (a) and of the weights (b) are; no taps, no depth.
  var ako = 0u;
  var akx = first_kx;
  var aky = select(first_ky, params.kernel_h, first_kx >= params.kernel_w);
  var bko = 0u;
  var bkx = akx;
  var bky = aky;
  ${skip('a', at.quad)}
  ${skip('b', at.quad)}
  let channel = (first_quad + ${at.line}) * 4u;`,
    fetch: `${lines(
      at.loads,
      (j) => `      {
        let oy = ty${j} + source(cy + params.padding, aky);
        let ox = tx${j} + source(cx + params.padding, akx);
        a${j} = Quad();
        if (aky < params.kernel_h && oy < params.out_h && ox < params.out_w) {
          a${j} = quad_dy(((n${j} * params.out_h + oy) * params.out_w + ox) * params.out_q + ako);
        }
      }`,
    )}
      ${skip('a', `${tile.depth / 4}u`)}
      let w = ((bky * params.kernel_w + bkx) * params.in_q * 4u + channel) * params.out_q + bko;
${lines(
  at.loads,
  (j) => `      b${j} = Quad();
      if (bky < params.kernel_h && channel + ${at.further(j)}u < params.in_q * 4u) {
        b${j} = Quad(weight[w + ${at.further(j)}u * params.out_q]);
      }`,
)}
      ${skip('b', `${tile.depth / 4}u`)}`,
    a: 'rows',
    b: 'blocks',
    store: `if (first + row < pixels && first_quad + column < params.in_q) {
      let p = first + row;
      let l = divide(p, columns, per_width);
      let picture = divide(p, columns * rows, per_map);
      let y = (l - picture * rows) * params.stride + cy;
      let x = (p - l * columns) * params.stride + cx;
      store_dx(((picture * params.in_h + y) * params.in_w + x) * params.in_q + first_quad + column, v);
    }`,
  });
  return [
    {
      label: `conv2d.grad_input.${kernel.name}`,
      directives: kernel.directives,
      uniforms: gradInputUniforms(s),
      buffers: [
        read('dy', call.dy),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        write('dx', call.dx),
      ],
      body: kernel.body,
      workgroups: [Math.min(tiles, 65535), ceilDiv(tiles, 65535), columns * s.stride * s.stride],
      flops: convFlops(s),
      bytes: gradInputBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}
