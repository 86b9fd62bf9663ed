/**
 * Convolution, one invocation a pixel and quad of output channels, for any shape in one group:
 *
 *   y[n,oy,ox,o] = Σ_{ky,kx,c} x[n, oy·s + ky·d − p, ox·s + kx·d − p, c] · w[ky,kx,c,o]
 *
 * Weights [kh][kw][Ip][Op] f32. No tiles, no shared memory: the plain variant that the others are checked
 * against, and the fallback for devices without subgroups and tiny maps.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import type { Conv2dCall } from './types.js';

const SIZE = 64;

export function conv2dDirect<B>(call: Conv2dCall<B>): KernelCall<B>[] {
  const s = call.shape;
  const count = s.batch * s.outHeight * s.outWidth * quads(s.outChannels);
  return [
    {
      label: 'conv2d.forward.direct',
      uniforms: { ...geometryUniforms(s), count: u32(count) },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...epilogueBuffers(call),
      ],
      body: `${epilogue(call)}
${eachItem(SIZE)}
  let quad = i % params.out_q;
  let pixel = i / params.out_q;
  let ox = pixel % params.out_w;
  let oy = (pixel / params.out_w) % params.out_h;
  let n = pixel / (params.out_w * params.out_h);
  var sum = vec4<f32>(0.0);
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
    let iy = oy * params.stride + ky * params.dilation - params.padding;
    if (iy >= params.in_h) { continue; }
    for (var kx = 0u; kx < params.kernel_w; kx++) {
      let ix = ox * params.stride + kx * params.dilation - params.padding;
      if (ix >= params.in_w) { continue; }
      let base = ((n * params.in_h + iy) * params.in_w + ix) * params.in_q;
      var w = (ky * params.kernel_w + kx) * params.in_q * 4u * params.out_q + quad;
      for (var c = 0u; c < params.in_q; c++) {
        let v = load_x(base + c);
        sum += v.x * weight[w] + v.y * weight[w + params.out_q] + v.z * weight[w + 2u * params.out_q] + v.w * weight[w + 3u * params.out_q];
        w += 4u * params.out_q;
      }
    }
  }
  finish(sum, vectors_of(quad), i);
}`,
      workgroups: grid(count, SIZE),
      flops: convFlops(s),
      bytes: convBytes(
        call,
        s.kernelHeight * s.kernelWidth * quads(s.inChannels) * 16 * quads(s.outChannels) * 4,
      ),
    },
  ];
}
