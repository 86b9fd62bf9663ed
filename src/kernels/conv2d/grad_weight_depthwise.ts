/**
 * Weight gradient of a depthwise convolution:
 *
 *   dw[ky,kx,c] = Σ_{n,oy,ox} x[n, oy·s + ky·d − p, ox·s + kx·d − p, c] · dy[n,oy,ox,c]      dw: [kh][kw][Cp] f32
 *
 * All loading. `gradWeightDepthwiseStrip` (3×3, stride 1 or 2): an invocation takes a quad of channels and walks
 * down strips of the map, a few columns wide; a row of x is loaded once and meets the rows of dy it reaches, which
 * stay in registers with the nine sums. `gradWeightDepthwise` takes any filter, one tap an invocation.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, eachItem, grid, quads, read } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { SplitPlan } from './grad_plan.js';
import type { GradWeightCall } from './grad_types.js';
import { eachPixelOfChunk } from './grad_weight_direct.js';
import { gradWeightBytes } from './grad_weight_subgroup.js';
import { range } from './subgroup.js';

const SIZE = 64;

const buffers = <B>(call: GradWeightCall<B>, partial: B) => [
  read('x', call.x),
  read('dy', call.dy),
  { name: 'partial', ref: partial, element: 'vec4<f32>', write: true },
];

export function gradWeightDepthwise<B>(call: GradWeightCall<B>, partial: B, plan: SplitPlan): KernelCall<B> {
  const s = call.shape;
  const count = plan.splits * plan.rows * quads(s.outChannels);
  return {
    label: 'conv2d.grad_weight.depthwise',
    uniforms: { ...geometryUniforms(s), count: u32(count), taps: u32(plan.rows), chunk: u32(plan.chunk) },
    buffers: buffers(call, partial),
    body: `${eachItem(SIZE)}
  let quad = i % params.out_q;
  let tap = i / params.out_q % params.taps;
  let split = i / (params.out_q * params.taps);
  let ky = tap / params.kernel_w;
  let kx = tap % params.kernel_w;
  var sum = vec4<f32>(0.0);
${eachPixelOfChunk('    sum += load_x(place * params.in_q + quad) * load_dy(m * params.out_q + quad);')}
  partial[i] = sum;
}`,
    workgroups: grid(count, SIZE),
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}

/**
 * 3×3, dilation 1. Units of depth are strips: `columns` columns of dy by `rows` rows. Row j of x (from the first
 * that a strip needs) meets row r of dy as ky = j − r·s.
 */
export function gradWeightDepthwiseStrip<B>(
  call: GradWeightCall<B>,
  partial: B,
  plan: SplitPlan & { tile: { columns: number; rows: number; size: number } },
): KernelCall<B> {
  const s = call.shape;
  const { columns, rows, size } = plan.tile;
  const { stride } = s;
  const inputs = (columns - 1) * stride + 3;
  const runs = ceilDiv(s.outWidth, columns);
  const strips = ceilDiv(s.outHeight, rows);
  const count = plan.splits * quads(s.outChannels);
  const add = (ky: number, row: string) =>
    range(3)
      .map(
        (kx) =>
          `w${ky}${kx} += ${range(columns)
            .map((r) => `v${r * stride + kx} * ${row}${r}`)
            .join(' + ')};`,
      )
      .join(' ');
  const move = (from: string, to: string) =>
    range(columns)
      .map((r) => `${to}${r} = ${from}${r};`)
      .join(' ');
  const loadRow = (name: string) =>
    range(columns)
      .map(
        (r) =>
          `${name}${r} = select(vec4<f32>(0.0), load_dy(select(0u, to + ${r}u, out${r} && live) * params.out_q + quad), out${r} && live);`,
      )
      .join('\n      ');
  // Stride 1: row j of x meets rows j (ky 0), j − 1 (ky 1) and j − 2 (ky 2) of dy. Stride 2: an even row 2r meets
  // r (ky 0) and r − 1 (ky 2), an odd one 2r + 1 meets r (ky 1).
  const step =
    stride === 1
      ? `      ${move('b', 'c')} ${move('a', 'b')}
      let live = turn < rows;
      let to = line_out + turn * params.out_w;
      ${loadRow('a')}
      ${add(0, 'a')} ${add(1, 'b')} ${add(2, 'c')}`
      : `      if ((turn & 1u) == 1u) { ${add(1, 'a')} } else {
      ${move('a', 'b')}
      let live = turn / 2u < rows;
      let to = line_out + turn / 2u * params.out_w;
      ${loadRow('a')}
      ${add(0, 'a')} ${add(2, 'b')}
      }`;
  const kept = stride === 1 ? ['a', 'b', 'c'] : ['a', 'b'];
  return {
    label: `conv2d.grad_weight.depthwise 3×3 s${stride}`,
    uniforms: {
      ...geometryUniforms(s),
      count: u32(count),
      chunk: u32(plan.chunk),
      units: u32(s.batch * strips * runs),
      runs: u32(runs),
      strips: u32(strips),
      rows: u32(rows),
    },
    buffers: buffers(call, partial),
    body: `${eachItem(size)}
  let quad = i % params.out_q;
  let split = i / params.out_q;
${range(9)
  .map((t) => `  var w${Math.floor(t / 3)}${t % 3} = vec4<f32>(0.0);`)
  .join('\n')}
  for (var unit = split * params.chunk; unit < min((split + 1u) * params.chunk, params.units); unit++) {
    let ox = unit % params.runs * ${columns}u;
    let strip = unit / params.runs;
    let n = strip / params.strips;
    let oy = strip % params.strips * params.rows;
    let rows = min(params.rows, params.out_h - oy);
${kept
  .map(
    (a) =>
      `    ${range(columns)
        .map((r) => `var ${a}${r} = vec4<f32>(0.0);`)
        .join(' ')}`,
  )
  .join('\n')}
    let line_out = (n * params.out_h + oy) * params.out_w + ox;
${range(columns)
  .map((r) => `    let out${r} = ox + ${r}u < params.out_w;`)
  .join('\n')}
    let ix = ox * ${stride}u - params.padding;
${range(inputs)
  .map((j) => `    let in${j} = ix + ${j}u < params.in_w;`)
  .join('\n')}
    let turns = (rows - 1u) * ${stride}u + 3u;
    for (var turn = 0u; turn < turns; turn++) {
      // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
      let iy = oy * ${stride}u + turn - params.padding;
      let inside = iy < params.in_h;
      let line = select(0u, (n * params.in_h + iy) * params.in_w, inside);
${range(inputs)
  .map(
    (j) =>
      `      let v${j} = select(vec4<f32>(0.0), load_x(select(0u, line + ix + ${j}u, in${j} && inside) * params.in_q + quad), in${j} && inside);`,
  )
  .join('\n')}
${step}
    }
  }
  let at = split * 9u * params.out_q + quad;
${range(9)
  .map((t) => `  partial[at + ${t}u * params.out_q] = w${Math.floor(t / 3)}${t % 3};`)
  .join('\n')}
}`,
    workgroups: grid(count, size),
    flops: convFlops(s),
    bytes: gradWeightBytes(call, plan),
  };
}
