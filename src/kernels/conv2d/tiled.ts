/**
 * Convolution as implicit GEMM for hardware GPUs, by the GEMM of gemm.ts: m is an output pixel, k tap and input channel,
 * n an output channel.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, type Operand, quads, read, tensorBytes } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { PLAIN, placesIn, quadLoad, type Tile } from './gemm.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';
import type { Conv2dCall } from './types.js';

const NEXT_TAP = 'kx++; if (kx == params.kernel_w) { kx = 0u; ky++; }';
/** Takes channels past the last over into the next taps. */
const CARRY = `while (c >= params.in_q) { c -= params.in_q; ${NEXT_TAP} }`;

/** @param tile `weight` is packed `f32`, where matrix units multiply `f16`. */
export function conv2dTiled<B>(call: Conv2dCall<B>, tile: Tile = PLAIN): KernelCall<B>[] {
  const s = call.shape;
  const { side } = tile;
  const at = placesIn(tile);
  const pixels = s.batch * s.outHeight * s.outWidth;
  const tiles = ceilDiv(pixels, side);
  const columns = ceilDiv(quads(s.outChannels) * 4, side);
  const weight: Operand<B> = {
    ref: call.weight,
    shape: [s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 4, s.outChannels],
    dtype: tile.m === undefined ? 'f32' : 'f16',
  };
  const kernel = gemmKernel(tile, {
    functions: `${epilogue(call)}
${DIVIDE}
${quadLoad('x', call.x.dtype, tile)}
${quadLoad('weight', weight.dtype, tile)}`,
    setup: `
  let first = (group.x + group.y * 65535u) * ${side}u;
  let first_quad = group.z * ${side / 4}u;
  let depth = params.kernel_h * params.kernel_w * params.in_q;
  // This invocation's pixels, and where in the depth (tap and channel quad) its next load is.
${lines(
  at.loads,
  (j) => `  let m${j} = min(first + ${at.aRow(j)}, params.pixels - 1u);
  let line${j} = divide(m${j}, params.out_w, params.per_width);
  let n${j} = divide(m${j}, params.out_w * params.out_h, params.per_map);
  let x${j} = (m${j} - line${j} * params.out_w) * params.stride - params.padding;
  let y${j} = (line${j} - n${j} * params.out_h) * params.stride - params.padding;`,
)}
  var ky = 0u;
  var kx = 0u;
  var c = ${at.quad};
  ${CARRY}
  var k = ${at.down} * 4u;
  let quad = first_quad + ${at.across};`,
    fetch: `${lines(
      at.loads,
      (j) => `      {
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = y${j} + ky * params.dilation;
        let ix = x${j} + kx * params.dilation;
        a${j} = Quad();
        if (ky < params.kernel_h && iy < params.in_h && ix < params.in_w) {
          a${j} = quad_x(((n${j} * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        b${j} = Quad();
        if (k + ${at.deeper(j)}u < depth * 4u && quad < params.out_q) {
          b${j} = quad_weight((k + ${at.deeper(j)}u) * params.out_q + quad);
        }
      }`,
    )}
      c += ${tile.depth / 4}u;
      ${CARRY}
      k += ${tile.depth}u;`,
    a: 'rows',
    b: 'rows',
    store: `if (first + row < params.pixels && first_quad + column < params.out_q) { finish(v, vectors_of(first_quad + column), (first + row) * params.out_q + first_quad + column); }`,
  });
  return [
    {
      label: `conv2d.forward.${kernel.name}`,
      directives: kernel.directives,
      uniforms: {
        ...geometryUniforms(s),
        per_width: f32(1 / s.outWidth),
        per_map: f32(1 / (s.outWidth * s.outHeight)),
      },
      buffers: [read('x', call.x), read('weight', weight), ...epilogueBuffers(call)],
      body: kernel.body,
      workgroups: [Math.min(tiles, 65535), ceilDiv(tiles, 65535), columns],
      flops: convFlops(s),
      bytes: convBytes(call, tensorBytes(weight.shape, weight.dtype)),
    },
  ];
}
