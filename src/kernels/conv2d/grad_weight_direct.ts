/**
 * Weight gradient, one invocation a 4×4 block (quad of input channels at a tap by quad of output channels) and
 * chunk of pixels, for any shape in one group. Plain: what the other variants are checked against, and the
 * fallback of devices without subgroups of a known size.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, quads, read } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';

const SIZE = 64;

/**
 * Loops over the output pixels `m` of chunk `split` whose tap lies inside the map: `body` has the pixel `place` of
 * x. Wants `ky`, `kx`.
 */
export const eachPixelOfChunk = (body: string): string => `
  let ty = ky * params.dilation - params.padding;
  let tx = kx * params.dilation - params.padding;
  let start = split * params.chunk;
  let end = min(start + params.chunk, params.pixels);
  var ox = start % params.out_w;
  var oy = start / params.out_w % params.out_h;
  var n = start / (params.out_w * params.out_h);
  for (var m = start; m < end; m++) {
    let iy = oy * params.stride + ty;
    let ix = ox * params.stride + tx;
    let picture = n * params.in_h;
    ox++;
    if (ox == params.out_w) { ox = 0u; oy++; if (oy == params.out_h) { oy = 0u; n++; } }
    if (iy >= params.in_h || ix >= params.in_w) { continue; }
    let place = (picture + iy) * params.in_w + ix;
${body}
  }`;

export function gradWeightDirect<B>(call: GradWeightCall<B>, partial: B, plan: SplitPlan): KernelCall<B> {
  const s = call.shape;
  const count = (plan.splits * plan.rows * quads(s.outChannels)) / 4;
  const each = (f: (j: number) => string) => [0, 1, 2, 3].map(f).join(' ');
  return {
    label: 'conv2d.grad_weight.direct',
    uniforms: {
      ...geometryUniforms(s),
      count: u32(count),
      row_quads: u32(plan.rows / 4),
      chunk: u32(plan.chunk),
    },
    buffers: [
      read('x', call.x),
      read('dy', call.dy),
      { name: 'partial', ref: partial, element: 'vec4<f32>', write: true },
    ],
    body: `${eachItem(SIZE)}
  let o = i % params.out_q;
  let row_quad = i / params.out_q % params.row_quads;
  let split = i / (params.out_q * params.row_quads);
  let c = row_quad % params.in_q;
  let ky = row_quad / params.in_q / params.kernel_w;
  let kx = row_quad / params.in_q % params.kernel_w;
  ${each((j) => `var s${j} = vec4<f32>(0.0);`)}
${eachPixelOfChunk(`    let v = load_x(place * params.in_q + c);
    let g = load_dy(m * params.out_q + o);
    ${each((j) => `s${j} += v[${j}] * g;`)}`)}
  let to = (split * params.row_quads + row_quad) * 4u * params.out_q + o;
  ${each((j) => `partial[to + ${j}u * params.out_q] = s${j};`)}
}`,
    workgroups: grid(count, SIZE),
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
