/**
 * Depthwise convolution, one filter a channel:
 *
 *   y[n,oy,ox,c] = Σ_{ky,kx} x[n, oy·s + ky·d − p, ox·s + kx·d − p, c] · w[ky,kx,c]      w: [kh][kw][Cp] f32
 *
 * Nothing is shared between channels, so the work is all loading. `conv2dDepthwiseStrip` (3×3, the filter of
 * every MobileFaceNet block) lets an invocation walk along a strip of the map, a quad of channels and a few
 * rows high: an input column is loaded once and added to the three output columns it touches, and the nine weights
 * stay in registers. Along, not down: then the next pixel is in the same page of memory, which processors fetch ahead.
 * `conv2dDepthwise` takes any filter, several outputs of a row an invocation.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import { f32, u32 } from '../../gpu/kernel_call.js';
import { beginChunk, endChunk, intoChunk, type PartialStatistics } from '../batchnorm/partial.js';
import { ceilDiv, DIVIDE, eachItem, grid, quads, read, vector } from '../tensor.js';
import { epilogue, epilogueBuffers } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import type { Temporary } from './grad_types.js';
import { lines, push, range } from './subgroup.js';
import type { Conv2dCall, Conv2dShape } from './types.js';

const totals = <B>(call: Conv2dCall<B>) => {
  const s = call.shape;
  return {
    flops: convFlops(s),
    bytes: convBytes(call, s.kernelHeight * s.kernelWidth * quads(s.outChannels) * 16),
  };
};

/** PReLU. */
export const ACTIVATED = `
fn activated(z: vec4<f32>, slope: vec4<f32>) -> vec4<f32> {
  return fma(slope, min(z, vec4<f32>(0.0)), max(z, vec4<f32>(0.0)));
}`;

export interface DepthwiseStrip {
  /** Output rows of an invocation. */
  rows: number;
  /** Output columns it walks along. */
  columns: number;
  /** Invocations of a workgroup. */
  size: number;
  /** Whether the weights come in a loop (1) or written out (0): a software driver compiles each load lane by lane. */
  loop: number;
}

/** What `statistics` is to be of a call with this tile. */
export function stripStatistics<B>(
  s: Conv2dShape,
  { rows, columns }: DepthwiseStrip,
  temporary: Temporary<B>,
): PartialStatistics<B> | undefined {
  // Strips as long as the map's rows differ in how many they take only at the end of a map.
  if (columns < s.outWidth) return undefined;
  const strips = ceilDiv(s.outHeight, rows);
  const partial = temporary([s.batch * strips * 2, s.outChannels], 'f32');
  return { partial, chunks: { strips, most: rows, total: s.outHeight, times: s.outWidth } };
}

/**
 * What an invocation does with its strip, at either stride: which registers are in use differs, and which turn does what. The
 * text around declares `quad`, the picture `n`, the strip's `ox`, `oy` and `columns`, the taps w0 … w8, and `finish` with its
 * `vectors`; with a norm also `activated`, `scale`, `shift` and `alpha`, and for statistics `strip`.
 */
export function stripWalk(rows: number, norm = false, known = false): string {
  /** As many registers of a column as stride 2 needs; at stride 1 only the last ones are in use. */
  const inputs = 2 * rows + 1;
  const idle = rows - 1;
  /** Input row ky of output row r. */
  const input = (r: number, ky: number) => {
    const [wide, narrow] = [2 * r + ky, idle + r + ky];
    return wide === narrow ? `v${wide}` : `select(v${wide}, v${narrow}, narrow)`;
  };
  /** Σ over ky of w[ky][kx] · the loaded column, for output row r. */
  const taps = (kx: number, r: number) =>
    range(3)
      .map((ky) => `w${3 * ky + kx} * x${r}${ky}`)
      .join(' + ');
  return `${lines(inputs, (j) => `  var v${j} = vec4<f32>(0.0);`)}
${lines(rows, (r) => `  var a${r} = vec4<f32>(0.0); var b${r} = vec4<f32>(0.0);`)}
  let narrow = params.stride == 1u;
  ${known ? beginChunk('vec4<f32>(0.0)') : ''}
  // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
  let iy = oy * params.stride - params.padding - select(0u, ${idle}u, narrow);
${lines(inputs, (j) => `  let in${j} = iy + ${j}u < params.in_h;`)}
  var to = ((n * params.out_h + oy) * params.out_w + ox) * params.out_q + quad;
  let turns = (columns - 1u) * params.stride + 3u;
  for (var turn = 0u; turn < turns; turn++) {
    let ix = ox * params.stride + turn - params.padding;
    let inside = ix < params.in_w;
    let first = (n * params.in_h + iy) * params.in_w + ix;
${lines(inputs, (j) => {
  const x = `load_x(select(0u, first + ${j}u * params.in_w, in${j} && inside) * params.in_q + quad)`;
  const value = norm ? `activated(fma(${x}, scale, shift), alpha)` : x;
  return `    ${j < idle ? 'if (!narrow) ' : ''}{ v${j} = select(vec4<f32>(0.0), ${value}, in${j} && inside); }`;
})}
${lines(rows, (r) =>
  range(3)
    .map((ky) => `    let x${r}${ky} = ${input(r, ky)};`)
    .join('\n'),
)}
    // At stride 1 every column of the input is the last of one output column, the middle one of the next and the first of
    // the one after; at stride 2 even turns are last and first, odd ones the middle. b has seen the first, a two.
    let even = narrow || (turn & 1u) == 0u;
    let odd = narrow || (turn & 1u) == 1u;
    if (even && turn >= 2u) {
${known ? `      if (turn == 2u) { about = a0 + ${taps(2, 0)}; }` : ''}
${lines(
  rows,
  (r) =>
    `      if (oy + ${r}u < params.out_h) { let v = a${r} + ${taps(2, r)}; finish(v, vectors, to + ${r}u * params.out_w * params.out_q); ${known ? intoChunk('v') : ''} }`,
)}
      to += params.out_q;
    }
    if (odd) { ${range(rows)
      .map((r) => `a${r} = b${r} + ${taps(1, r)};`)
      .join(' ')} }
    if (even) { ${range(rows)
      .map((r) => `b${r} = ${taps(0, r)};`)
      .join(' ')} }
  }
  ${known ? endChunk('strip * 2u * params.out_q + quad', 'params.out_q', `f32(columns * min(${rows}u, params.out_h - oy))`) : ''}`;
}

/** 3×3, dilation 1, stride 1 or 2, both in one pipeline. */
export function conv2dDepthwiseStrip<B>(
  call: Conv2dCall<B>,
  { rows, columns, size, loop }: DepthwiseStrip,
): KernelCall<B>[] {
  const s = call.shape;
  const strips = ceilDiv(s.outHeight, rows);
  const runs = ceilDiv(s.outWidth, columns);
  const count = s.batch * strips * runs * quads(s.outChannels);
  const weights = loop
    ? // The bound is a uniform, so that the driver keeps the loop; the weights move down past w0.
      `  for (var t = 0u; t < params.kernel_h * params.kernel_w; t++) {
    ${push('w', 9, 'weight[t * params.out_q + quad]')}
  }`
    : lines(9, (t) => `  w${t} = weight[${t}u * params.out_q + quad];`);
  const { norm } = call;
  const known = call.statistics?.partial;
  return [
    {
      label: `conv2d.forward.depthwise 3×3${norm ? ' norm' : ''}${known ? ' statistics' : ''}`,
      uniforms: {
        ...geometryUniforms(s),
        count: u32(count),
        runs: u32(runs),
        strips: u32(strips),
        columns: u32(columns),
        per_quads: f32(1 / quads(s.outChannels)),
        per_row: f32(1 / runs),
        per_map: f32(1 / strips),
      },
      buffers: [
        read('x', call.x),
        vector('weight', call.weight),
        ...(norm ? [vector('statistics', norm.statistics), vector('slopes', norm.slope)] : []),
        ...epilogueBuffers(call),
        ...(known ? [vector('partial', known.ref, true)] : []),
      ],
      body: `${DIVIDE}
${epilogue(call)}
${norm ? ACTIVATED : ''}
${eachItem(size)}
  let place = divide(i, params.out_q, params.per_quads);
  let quad = i - place * params.out_q;
  let strip = divide(place, params.runs, params.per_row);
  let ox = (place - strip * params.runs) * params.columns;
  let n = divide(strip, params.strips, params.per_map);
  let oy = (strip - n * params.strips) * ${rows}u;
  let columns = min(params.columns, params.out_w - ox);
  let vectors = vectors_of(quad);
${
  norm
    ? `  let scale = statistics[quad];
  let shift = statistics[params.out_q + quad];
  let alpha = slopes[quad];`
    : ''
}
${lines(9, (t) => `  var w${t} = vec4<f32>(0.0);`)}
${weights}
${stripWalk(rows, norm !== undefined, known !== undefined)}
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
      buffers: [read('x', call.x), vector('weight', call.weight), ...epilogueBuffers(call)],
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
  let vectors = vectors_of(quad);
  let first = (row * params.out_w + ox) * params.out_q + quad;
${each((r) => `  if (ox + ${r}u < params.out_w) { finish(sum${r}, vectors, first + ${r}u * params.out_q); }`)}
}`,
      workgroups: grid(count, SIZE),
      ...totals(call),
    },
  ];
}
