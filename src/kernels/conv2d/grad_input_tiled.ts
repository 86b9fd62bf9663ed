/**
 * Input gradient by the GEMM of gemm.ts, for hardware GPUs: m is a pixel of one class of the stride (see
 * grad_input.ts), k a tap of that class and an output channel, n an input channel. The weights' quads lie along k, so
 * an invocation loads a 4×4 block of them and turns it round on the way to workgroup memory.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read, vector, write } from '../tensor.js';
import { foursOfB, placesIn, quadLoad, type Tile } from './gemm.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, largestClass } from './grad_geometry.js';
import type { GradInputCall } from './grad_types.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';

/**
 * Goes on in the depth as long as `ko` is past the last output channel: to the next taps of the class, and what they add
 * to an output's coordinates, its index and that of a weight.
 */
const carry = (again: 'if' | 'while') => `${again} (ko >= params.out_q) {
        ko -= params.out_q;
        kx += params.tap_step;
        if (kx >= params.kernel_w) { kx = first_kx; ky += params.tap_step; }
        ${TAP}
      }`;
const TAP = `// Beyond the last tap every output is outside.
        tap_y = select(source(cy + params.padding, ky), 0x40000000u, ky >= params.kernel_h);
        tap_x = source(cx + params.padding, kx);
        tap = (tap_y * params.out_w + tap_x) * params.out_q;
        tap_weight = (ky * params.kernel_w + kx) * params.in_q * 4u * params.out_q;`;

export function gradInputTiled<B>(call: GradInputCall<B>, tile: Tile): KernelCall<B>[] {
  const s = call.shape;
  const { side } = tile;
  const at = placesIn(tile);
  const tiles = ceilDiv(largestClass(s), side);
  const columns = ceilDiv(quads(s.inChannels) * 4, side);
  /** Tiles that never pass the last channel need no test. */
  const isWide = (quads(s.inChannels) * 4) % side === 0;
  const further = (h: number) => at.further(4 * h);
  const b = foursOfB(
    at.loads,
    (h) => `ky < params.kernel_h${isWide ? '' : ` && channel + ${further(h)}u < params.in_q * 4u`}`,
    (h) => `tap_weight + (channel + ${further(h)}u) * params.out_q + ko`,
    (index) => `Quad(weight[${index}])`,
  );
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
  let x${i} = m${i} - line${i} * columns;
  let y${i} = line${i} - n${i} * rows;
  let corner${i} = ((n${i} * params.out_h + y${i}) * params.out_w + x${i}) * params.out_q;
  var a_counts${i} = false;`,
)}
  // Where in the depth the next loads of dy (a) and of the weights (b) are; no taps, no depth.
  var ko = ${at.quad};
  var kx = first_kx;
  var ky = select(first_ky, params.kernel_h, first_kx >= params.kernel_w);
  var tap_y: u32;
  var tap_x: u32;
  var tap: u32;
  var tap_weight: u32;
  { ${TAP} }
  ${carry('while')}
  let channel = (first_quad + ${at.line}) * 4u;
${b.setup}`,
    fetch: `${lines(
      at.loads,
      (j) => `      a_counts${j} = y${j} + tap_y < params.out_h && x${j} + tap_x < params.out_w;
      a${j} = quad_dy(select(0u, corner${j} + tap + ko, a_counts${j}));`,
    )}
${b.fetch}
      ko += ${tile.depth / 4}u;
      ${carry(quads(s.outChannels) >= tile.depth / 4 ? 'if' : 'while')}`,
    counts: { a: (j) => `a_counts${j}`, b: b.counts },
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
      buffers: [read('dy', call.dy), vector('weight', call.weight), write('dx', call.dx)],
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
