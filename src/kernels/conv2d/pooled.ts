/**
 * A first layer and the max pooling after it in one kernel: 3×3 over three channels at stride 1, bias, activation, windows
 * of 2×2 or 3×3 at stride 2. The map before pooling, four times as large as the one after it, is never stored.
 *
 * Lanes are pixels here, not channels as in subgroup.ts: with so few inputs a lane can hold the whole window that its
 * outputs see, so that each pixel is loaded for nine taps at once, and no lane idles however few channels come out. A lane
 * walks down a strip of the pooled map, two columns wide, two rows of the convolution a turn, and for each quad of
 * channels takes the 27 weights from the lanes of the subgroup, which have loaded some each.
 *
 * Windows of three overlap by a row: a pooled row is stored without it and completed in the next turn.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, DIVIDE, grid, quads, read, write } from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import { handed, lines, range } from './subgroup.js';
import type { Conv2dCall, Conv2dShape, ConvPool } from './types.js';

export interface PooledTile {
  /** Lanes of a subgroup. */
  lanes: number;
  /** Invocations of a workgroup. */
  size: number;
  /** Pooled rows that an invocation walks down. */
  rows: number;
}

/** Pooled columns of an invocation. */
const COLUMNS = 2;
/** Depth steps: nine taps of three channels. */
const DEPTH = 27;

export const isPooled = (s: Conv2dShape, pool: ConvPool): boolean =>
  s.kernelHeight === 3 &&
  s.kernelWidth === 3 &&
  s.inChannels === 3 &&
  s.stride === 1 &&
  s.padding === 0 &&
  s.dilation === 1 &&
  s.groups === 1 &&
  pool.stride === 2 &&
  (pool.kernel === 2 || pool.kernel === 3);

export function conv2dPooled<B>(call: Conv2dCall<B>, tile: PooledTile): KernelCall<B>[] {
  const { shape: s, bias, slope, activation, y } = call;
  const { lanes, size, rows } = tile;
  const { kernel } = call.pool!;
  const [, height, width] = y.shape;
  const runs = ceilDiv(width, COLUMNS);
  const strips = ceilDiv(height, rows);
  const count = s.batch * strips * runs;
  const overlaps = kernel === 3;
  /** Columns of the convolution and of its input. */
  const columns = 2 * (COLUMNS - 1) + kernel;
  const inputs = columns + 2;
  const loads = ceilDiv(DEPTH, lanes);

  /** One depth step for the sums of both rows of a turn, one a column. */
  const products = range(DEPTH).map((k) => {
    const [tap, c] = [Math.floor(k / 3), k % 3];
    const [ky, kx] = [Math.floor(tap / 3), tap % 3];
    const sums = [0, 1].flatMap((r) =>
      range(columns).map((j) => `s${r}${j} = fma(vec4<f32>(v${r + ky}${j + kx}.${'xyz'[c]}), w, s${r}${j});`),
    );
    return `    { let w = ${handed(`w${Math.floor(k / lanes)}`, k % lanes)}; ${sums.join(' ')} }`;
  });
  const activate = (v: string) =>
    activation === 'prelu'
      ? `max(${v}, vec4<f32>(0.0)) + slope_here * min(${v}, vec4<f32>(0.0))`
      : activation === 'relu'
        ? `max(${v}, vec4<f32>(0.0))`
        : v;
  /** Activated, and out of the running where the convolution has no such column. */
  const finished = (r: number) =>
    lines(columns, (j) => {
      const v = activate(`s${r}${j}`);
      return `    s${r}${j} = ${j === 0 ? v : `select(LOWEST, ${v}, within${j})`};`;
    });
  const widest = (r: number, p: number) =>
    range(kernel - 1).reduce((m, k) => `max(${m}, s${r}${2 * p + k + 1})`, `s${r}${2 * p}`);

  const body = `
const LOWEST = vec4<f32>(-3.4028234e38);
${DIVIDE}
@compute @workgroup_size(${size})
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
  let i = gid.x + gid.y * groups.x * ${size}u;
  // Lanes without an item of their own work for the others, whom they hand weights.
  let item = min(i, params.count - 1u);
  let strip = divide(item, params.runs, params.per_row);
  let column = (item - strip * params.runs) * ${COLUMNS}u;
  let n = divide(strip, params.strips, params.per_map);
  let first = (strip - n * params.strips) * params.rows;
  let rows = select(0u, min(params.rows, params.pooled_h - first), i < params.count);
${lines(inputs, (j) => `  let x${j} = min(2u * column + ${j}u, params.in_w - 1u);`)}
${lines(columns, (j) => `  let within${j} = 2u * column + ${j}u < params.out_w;`)}
${lines(loads, (l) => `  let at${l} = (min(lane + ${l * lanes}u, ${DEPTH - 1}u) * 4u / 3u) * params.out_q;`)}
${range(4)
  .map((r) =>
    range(inputs)
      .map((j) => `  var v${r}${j} = vec3<f32>(0.0);`)
      .join(' '),
  )
  .join('\n')}
  var line = 2u * first;
  var to = ((n * params.pooled_h + first) * params.pooled_w + column) * params.out_q;
  let stride = params.pooled_w * params.out_q;
  for (var turn = 0u; turn < params.turns; turn++) {
    // Four rows of the input before the first turn, two more before each other one.
    for (; line < 2u * (first + turn) + 4u; line++) {
      let start = (n * params.in_h + min(line, params.in_h - 1u)) * params.in_w;
${range(3)
  .map(
    (r) =>
      `      ${range(inputs)
        .map((j) => `v${r}${j} = v${r + 1}${j};`)
        .join(' ')}`,
  )
  .join('\n')}
${lines(inputs, (j) => `      v3${j} = load_x(start + x${j}).xyz;`)}
    }
    let low_is_within = 2u * (first + turn) + 1u < params.out_h;
    for (var q = 0u; q < params.out_q; q++) {
${lines(loads, (l) => `    let w${l} = weight[at${l} + q];`)}
    ${slope === undefined ? '' : 'let slope_here = slope[q];'}
    let start = ${bias === undefined ? 'vec4<f32>(0.0)' : 'bias[q]'};
${[0, 1]
  .map(
    (r) =>
      `    ${range(columns)
        .map((j) => `var s${r}${j} = start;`)
        .join(' ')}`,
  )
  .join('\n')}
${products.join('\n')}
${finished(0)}
${finished(1)}
${range(COLUMNS)
  .map((p) => {
    const place = `to + ${p === 0 ? '' : `${p}u * params.out_q + `}q`;
    const exists = p === 0 ? '' : ` && column + ${p}u < params.pooled_w`;
    return `    { let top = ${widest(0, p)}; let low = select(LOWEST, ${widest(1, p)}, low_is_within);
${overlaps ? `      if (turn > 0u && turn <= rows && 2u * (first + turn) < params.out_h${exists}) { let above = ${place} - stride; store_y(above, max(load_y(above), top)); }\n` : ''}      if (turn < rows${exists}) { store_y(${place}, max(top, low)); } }`;
  })
  .join('\n')}
    }
    to += stride;
  }
}`;
  return [
    {
      label: `conv2d.forward.pooled ${kernel}/2`,
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: {
        ...geometryUniforms(s),
        count: u32(count),
        pooled_h: u32(height),
        pooled_w: u32(width),
        runs: u32(runs),
        strips: u32(strips),
        rows: u32(rows),
        // The row that the last window shares with a next one is computed for its sake, where there is one.
        turns: u32(rows + (overlaps && (strips > 1 || 2 * height < s.outHeight) ? 1 : 0)),
        per_row: f32(1 / runs),
        per_map: f32(1 / strips),
      },
      buffers: [
        read('x', call.x),
        { name: 'weight', ref: call.weight, element: 'vec4<f32>', write: false },
        ...(bias === undefined ? [] : [{ name: 'bias', ref: bias, element: 'vec4<f32>', write: false }]),
        ...(slope === undefined ? [] : [{ name: 'slope', ref: slope, element: 'vec4<f32>', write: false }]),
        write('y', y),
      ],
      body,
      workgroups: grid(count, size),
      flops: convFlops(s),
      bytes:
        s.batch * s.inHeight * s.inWidth * bytesPerQuad(call.x.dtype) +
        s.batch * height * width * quads(s.outChannels) * bytesPerQuad(y.dtype),
    },
  ];
}
