/**
 * Depthwise convolution, one filter a channel:
 *
 *   y[n,oy,ox,c] = Σ_{ky,kx} x[n, oy·s + ky·d − p, ox·s + kx·d − p, c] · w[ky,kx,c]      w: [kh][kw][Cp] f32
 *
 * Nothing is shared between channels, so the work is all loading. `conv2dDepthwiseStrip` (3×3, the filter of
 * every MobileFaceNet block) lets an invocation walk down a strip of the map, a quad of channels and a few
 * columns wide: an input row is loaded once and added to the three output rows it touches, and the nine weights
 * stay in registers. `conv2dDepthwise` takes any filter, several outputs of a row an invocation.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, DIVIDE, eachItem, grid, quads, read } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import { range } from './subgroup.js';
import type { Conv2dCall } from './types.js';

const weightOf = <B>(call: Conv2dCall<B>) => ({
  name: 'weight',
  ref: call.weight,
  element: 'vec4<f32>',
  write: false,
});

const totals = <B>(call: Conv2dCall<B>) => {
  const s = call.shape;
  return {
    flops: convFlops(s),
    bytes: convBytes(call, s.kernelHeight * s.kernelWidth * quads(s.outChannels) * 16),
  };
};

/**
 * 3×3, dilation 1, stride 1 or 2.
 * @param columns output columns of an invocation.
 * @param rows output rows it walks down.
 */
export function conv2dDepthwiseStrip<B>(
  call: Conv2dCall<B>,
  { columns, rows, size }: { columns: number; rows: number; size: number },
): KernelCall<B>[] {
  const s = call.shape;
  const runs = ceilDiv(s.outWidth, columns);
  const strips = ceilDiv(s.outHeight, rows);
  const count = s.batch * strips * runs * quads(s.outChannels);
  const inputs = (columns - 1) * s.stride + 3;
  /** Σ over kx of w[ky][kx] · the loaded row, for output column r. */
  const taps = (ky: number, r: number) =>
    range(3)
      .map((kx) => `w${ky}${kx} * v${r * s.stride + kx}`)
      .join(' + ');
  const add = (name: string, ky: number) =>
    range(columns)
      .map((r) => `${name}${r} += ${taps(ky, r)};`)
      .join(' ');
  const store = range(columns)
    .map((r) => `if (ox + ${r}u < params.out_w) { finish(a${r}, quad, to + ${r}u * params.out_q); }`)
    .join(' ');
  const move = (from: string, to: string) =>
    range(columns)
      .map((r) => `${to}${r} = ${from === '' ? 'vec4<f32>(0.0)' : `${from}${r}`};`)
      .join(' ');
  // Stride 1: every input row ends output row a, is the middle of b and begins c. Stride 2: odd turns are the
  // middle of a, even ones end a and begin b.
  const step =
    s.stride === 1
      ? `    ${add('a', 2)} ${add('b', 1)} ${add('c', 0)}
    if (turn >= 2u) { ${store} to += params.out_w * params.out_q; }
    ${move('b', 'a')} ${move('c', 'b')} ${move('', 'c')}`
      : `    if ((turn & 1u) == 1u) { ${add('a', 1)} } else {
      ${add('a', 2)} ${add('b', 0)}
      if (turn >= 2u) { ${store} to += params.out_w * params.out_q; }
      ${move('b', 'a')} ${move('', 'b')}
    }`;
  const accumulators = s.stride === 1 ? ['a', 'b', 'c'] : ['a', 'b'];
  return [
    {
      label: `conv2d.forward.depthwise 3×3 s${s.stride}`,
      uniforms: {
        ...geometryUniforms(s),
        count: u32(count),
        runs: u32(runs),
        strips: u32(strips),
        rows: u32(rows),
        per_quads: f32(1 / quads(s.outChannels)),
        per_row: f32(1 / runs),
        per_map: f32(1 / strips),
      },
      buffers: [read('x', call.x), weightOf(call), ...epilogueBuffers(call)],
      body: `${DIVIDE}
${epilogue(call)}
${eachItem(size)}
  let place = divide(i, params.out_q, params.per_quads);
  let quad = i - place * params.out_q;
  let strip = divide(place, params.runs, params.per_row);
  let ox = (place - strip * params.runs) * ${columns}u;
  let n = divide(strip, params.strips, params.per_map);
  let oy = (strip - n * params.strips) * params.rows;
  let rows = min(params.rows, params.out_h - oy);
${range(9)
  .map((t) => `  let w${Math.floor(t / 3)}${t % 3} = weight[${t}u * params.out_q + quad];`)
  .join('\n')}
${accumulators
  .map(
    (a) =>
      `  ${range(columns)
        .map((r) => `var ${a}${r} = vec4<f32>(0.0);`)
        .join(' ')}`,
  )
  .join('\n')}
  let ix = ox * ${s.stride}u - params.padding;
${range(inputs)
  .map((j) => `  let in${j} = ix + ${j}u < params.in_w;`)
  .join('\n')}
  var to = ((n * params.out_h + oy) * params.out_w + ox) * params.out_q + quad;
  let turns = (rows - 1u) * ${s.stride}u + 3u;
  for (var turn = 0u; turn < turns; turn++) {
    // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
    let iy = oy * ${s.stride}u + turn - params.padding;
    let inside = iy < params.in_h;
    let line = select(0u, (n * params.in_h + iy) * params.in_w, inside);
${range(inputs)
  .map(
    (j) =>
      `    let v${j} = select(vec4<f32>(0.0), load_x(select(0u, line + ix + ${j}u, in${j} && inside) * params.in_q + quad), in${j} && inside);`,
  )
  .join('\n')}
${step}
  }
}`,
      workgroups: grid(count, size),
      ...totals(call),
    },
  ];
}

const SIZE = 64;

/** @param run output pixels of a row per invocation. */
export function conv2dDepthwise<B>(call: Conv2dCall<B>, run: number): KernelCall<B>[] {
  const s = call.shape;
  const runs = ceilDiv(s.outWidth, run);
  const count = s.batch * s.outHeight * runs * quads(s.outChannels);
  const each = (f: (r: number) => string) => range(run).map(f).join('\n');
  return [
    {
      label: 'conv2d.forward.depthwise',
      uniforms: { ...geometryUniforms(s), count: u32(count), runs: u32(runs) },
      buffers: [read('x', call.x), weightOf(call), ...epilogueBuffers(call)],
      body: `${epilogue(call)}
${eachItem(SIZE)}
  let quad = i % params.out_q;
  let ox = (i / params.out_q) % params.runs * ${run}u;
  let row = i / (params.out_q * params.runs);
  let oy = row % params.out_h;
  let n = row / params.out_h;
${each((r) => `  var sum${r} = vec4<f32>(0.0);`)}
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    let iy = oy * params.stride + ky * params.dilation - params.padding;
    if (iy >= params.in_h) { continue; }
    let line = (n * params.in_h + iy) * params.in_w;
    for (var kx = 0u; kx < params.kernel_w; kx++) {
      let w = weight[(ky * params.kernel_w + kx) * params.out_q + quad];
      let ix = ox * params.stride + kx * params.dilation - params.padding;
${each((r) => `      { let at = ix + ${r}u * params.stride; if (at < params.in_w) { sum${r} += w * load_x((line + at) * params.in_q + quad); } }`)}
    }
  }
  let first = (row * params.out_w + ox) * params.out_q + quad;
${each((r) => `  if (ox + ${r}u < params.out_w) { finish(sum${r}, quad, first + ${r}u * params.out_q); }`)}
}`,
      workgroups: grid(count, SIZE),
      ...totals(call),
    },
  ];
}
