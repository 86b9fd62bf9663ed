/**
 * Input gradient of a depthwise convolution:
 *
 *   dx[n,iy,ix,c] = Σ_{ky,kx} dy[n,oy,ox,c] · w[ky,kx,c]      oy·s + ky·d − p = iy, ox·s + kx·d − p = ix
 *
 * All loading, like the forward pass. `gradInputDepthwiseStrip` (3×3, stride 1 or 2) walks down a strip of dy, a
 * few columns wide: a row of dy is loaded once and added to the three rows of dx it reaches. `gradInputDepthwise`
 * takes any filter, stride and dilation by the classes of grad_input.ts.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, eachItem, grid, quads, read, write } from '../tensor.js';
import { convFlops } from './geometry.js';
import { CLASSES, gradInputBytes, gradInputUniforms, REACHING } from './grad_geometry.js';
import { classGrid, eachClassPixel, eachTap } from './grad_input_direct.js';
import type { GradInputCall } from './grad_types.js';
import { range } from './subgroup.js';

const buffers = <B>(call: GradInputCall<B>) => [
  read('dy', call.dy),
  { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
  write('dx', call.dx),
];

const totals = <B>(call: GradInputCall<B>) => {
  const s = call.shape;
  return {
    flops: convFlops(s),
    bytes: gradInputBytes(call, s.kernelHeight * s.kernelWidth * quads(s.outChannels) * 16),
  };
};

export function gradInputDepthwise<B>(call: GradInputCall<B>): KernelCall<B>[] {
  return [
    {
      label: 'conv2d.grad_input.depthwise',
      uniforms: gradInputUniforms(call.shape),
      buffers: buffers(call),
      body: `${CLASSES}${REACHING}
${eachClassPixel}
  var sum = vec4<f32>(0.0);
${eachTap('      sum += weight[tap * params.out_q + quad] * load_dy(place * params.out_q + quad);')}
  store_dx(to, sum);
}`,
      workgroups: classGrid(call),
      ...totals(call),
    },
  ];
}

/** dx[n,t,c] = dy[n,c] · w[t,c] over the pixels t of the map, an invocation a picture and quad of channels. */
export function gradInputDepthwiseGlobal<B>(call: GradInputCall<B>, size: number): KernelCall<B>[] {
  const s = call.shape;
  const count = s.batch * quads(s.outChannels);
  return [
    {
      label: 'conv2d.grad_input.depthwise global',
      uniforms: { count: u32(count), quads: u32(quads(s.outChannels)), taps: u32(s.inHeight * s.inWidth) },
      buffers: buffers(call),
      body: `${eachItem(size)}
  let n = i / params.quads;
  let quad = i - n * params.quads;
  let g = load_dy(i);
  var w = quad;
  var to = n * params.taps * params.quads + quad;
  for (var t = 0u; t < params.taps; t++) {
    store_dx(to, g * weight[w]);
    w += params.quads;
    to += params.quads;
  }
}`,
      workgroups: grid(count, size),
      ...totals(call),
    },
  ];
}

export interface StripTile {
  /** Columns of dy that an invocation adds up wholly. */
  columns: number;
  /** Rows of dy it walks down (two more are loaded at the ends). */
  rows: number;
  size: number;
}

/**
 * 3×3, dilation 1. Row t of dy reaches the rows t·s − p … t·s − p + 2 of dx: an invocation keeps those rows as
 * running sums, and a row is done, and stored, when the walk has passed every row of dy that reaches it. The strip
 * of dx starts where the first row of dy of the strip starts, so strips meet without overlap.
 */
export function gradInputDepthwiseStrip<B>(
  call: GradInputCall<B>,
  { columns, rows, size }: StripTile,
): KernelCall<B>[] {
  const s = call.shape;
  const { stride } = s;
  // The last pixels of dx may lie beyond what the last row of dy starts.
  const reachedRows = ceilDiv(s.inHeight + s.padding, stride);
  const reachedColumns = ceilDiv(s.inWidth + s.padding, stride);
  const runs = ceilDiv(reachedColumns, columns);
  const strips = ceilDiv(reachedRows, rows);
  const count = s.batch * strips * runs * quads(s.outChannels);
  /** Columns of dy to the left that reach a strip of dx as well. */
  const before = stride === 1 ? 2 : 1;
  const inputs = columns + before;
  const outputs = columns * stride;
  /** Σ over kx of w[ky][kx] · dy for the strip's column r of dx: kx = r − (j − before)·stride. */
  const taps = (ky: number, r: number) =>
    range(inputs)
      .map((j) => [j, r - (j - before) * stride] as const)
      .filter(([, kx]) => kx >= 0 && kx < 3)
      .map(([j, kx]) => `w${ky}${kx} * v${j}`)
      .join(' + ');
  const add = (name: string, ky: number) =>
    range(outputs)
      .map((r) => `${name}${r} += ${taps(ky, r)};`)
      .join(' ');
  const store = (name: string, row: string) =>
    `if (turn >= ${before}u && ${row} < params.in_h) { let to = ((n * params.in_h + ${row}) * params.in_w + ix) * params.in_q + quad; ${range(
      outputs,
    )
      .map((r) => `if (ix + ${r}u < params.in_w) { store_dx(to + ${r}u * params.in_q, ${name}${r}); }`)
      .join(' ')} }`;
  const move = (from: string, to: string) =>
    range(outputs)
      .map((r) => `${to}${r} = ${from === '' ? 'vec4<f32>(0.0)' : `${from}${r}`};`)
      .join(' ');
  // Stride 1: row t of dy ends row t − p of dx (a), goes on with the next (b) and begins the one after (c).
  // Stride 2: it ends row 2t − p (a), is all of row 2t + 1 − p (b), and begins row 2t + 2 − p (c).
  const step =
    stride === 1
      ? `    ${add('a', 0)} ${add('b', 1)} ${add('c', 2)}
    let iy = ty - params.padding;
    ${store('a', 'iy')}
    ${move('b', 'a')} ${move('c', 'b')} ${move('', 'c')}`
      : `    ${add('a', 0)} ${add('b', 1)} ${add('c', 2)}
    let iy = ty * 2u - params.padding;
    ${store('a', 'iy')}
    ${store('b', '(iy + 1u)')}
    ${move('c', 'a')} ${move('', 'b')} ${move('', 'c')}`;
  return [
    {
      label: `conv2d.grad_input.depthwise 3×3 s${stride}`,
      uniforms: {
        ...gradInputUniforms(s),
        count: u32(count),
        runs: u32(runs),
        strips: u32(strips),
        rows: u32(rows),
        reached: u32(reachedRows),
      },
      buffers: buffers(call),
      body: `${eachItem(size)}
  let quad = i % params.out_q;
  let tx = i / params.out_q % params.runs * ${columns}u;
  let strip = i / (params.out_q * params.runs);
  let n = strip / params.strips;
  let top = strip % params.strips * params.rows;
  let rows = min(params.rows, params.reached - top);
${range(9)
  .map((t) => `  let w${Math.floor(t / 3)}${t % 3} = weight[${t}u * params.out_q + quad];`)
  .join('\n')}
${['a', 'b', 'c']
  .map(
    (a) =>
      `  ${range(outputs)
        .map((r) => `var ${a}${r} = vec4<f32>(0.0);`)
        .join(' ')}`,
  )
  .join('\n')}
  let ix = tx * ${stride}u - params.padding;
  // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
  let ox = tx - ${before}u;
${range(inputs)
  .map((j) => `  let in${j} = ox + ${j}u < params.out_w;`)
  .join('\n')}
  for (var turn = 0u; turn < rows + ${before}u; turn++) {
    let ty = top + turn - ${before}u;
    let inside = ty < params.out_h;
    let line = select(0u, (n * params.out_h + ty) * params.out_w, inside);
${range(inputs)
  .map(
    (j) =>
      `    let v${j} = select(vec4<f32>(0.0), load_dy(select(0u, line + ox + ${j}u, in${j} && inside) * params.out_q + quad), in${j} && inside);`,
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
