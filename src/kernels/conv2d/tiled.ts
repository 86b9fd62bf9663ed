/**
 * Convolution as implicit GEMM for hardware GPUs, by the GEMM of gemm.ts: m is an output pixel, k tap and input channel,
 * n an output channel.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { PLAIN, placesIn, quadLoad, type Tile } from './gemm.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { gemmKernel } from './matrix.js';
import { lines } from './subgroup.js';
import type { Conv2dCall } from './types.js';

const NEXT_TAP = 'kx++; if (kx == params.kernel_w) { kx = 0u; ky++; }';
/** Takes channels past the last over into the next taps. */
const CARRY = `while (c >= params.in_q) { c -= params.in_q; ${NEXT_TAP} }`;

export function conv2dTiled<B>(call: Conv2dCall<B>, tile: Tile = PLAIN): KernelCall<B>[] {
  const s = call.shape;
  const { side } = tile;
  const at = placesIn(tile);
  const pixels = s.batch * s.outHeight * s.outWidth;
  const tiles = ceilDiv(pixels, side);
  const columns = ceilDiv(quads(s.outChannels) * 4, side);
  const kernel = gemmKernel(tile, {
    functions: `${epilogue(call)}\n${DIVIDE}\n${quadLoad('x', call.x.dtype, tile)}`,
    setup: `
  let first = (group.x + group.y * 65535u) * ${side}u;
  let first_quad = group.z * ${side / 4}u;
  let depth = params.kernel_h * params.kernel_w * params.in_q;
  // This invocation's pixels, and where in the depth (tap and channel quad) its next load is.
${lines(
  at.rows,
  (i) => `  let m${i} = min(first + ${at.aRow(i)}, params.pixels - 1u);
  let line${i} = divide(m${i}, params.out_w, params.per_width);
  let n${i} = divide(m${i}, params.out_w * params.out_h, params.per_map);
  let x${i} = (m${i} - line${i} * params.out_w) * params.stride - params.padding;
  let y${i} = (line${i} - n${i} * params.out_h) * params.stride - params.padding;`,
)}
  var ky = 0u;
  var kx = 0u;
  var c = ${at.aStart};
  ${at.rows > 1 ? CARRY : ''}
  var k = ${at.down};
  let quad = first_quad + ${at.across};`,
    fetch: `${lines(4, (j) => {
      const i = at.rows > 1 ? j : 0;
      return `      {
        // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
        let iy = y${i} + ky * params.dilation;
        let ix = x${i} + kx * params.dilation;
        a${j} = Quad();
        if (ky < params.kernel_h && iy < params.in_h && ix < params.in_w) {
          a${j} = quad_x(((n${i} * params.in_h + iy) * params.in_w + ix) * params.in_q + c);
        }
        ${at.rows > 1 ? '' : `c++; if (c == params.in_q) { c = 0u; ${NEXT_TAP} }`}
      }`;
    })}
      ${at.rows > 1 ? `c += ${tile.depth / 4}u; ${CARRY}` : ''}
      if (k < depth && quad < params.out_q) {
${lines(4, (j) => `        b${j} = Quad(weight[(k * 4u + ${j}u) * params.out_q + quad]);`)}
      } else {
${lines(4, (j) => `        b${j} = Quad();`)}
      }
      k += ${tile.depth / 4}u;`,
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
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body: kernel.body,
      workgroups: [Math.min(tiles, 65535), ceilDiv(tiles, 65535), columns],
      flops: convFlops(s),
      bytes: convBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}
