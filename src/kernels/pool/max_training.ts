/**
 * Max pooling in training. The forward pass keeps at which place of its window each maximum lies, four bytes a quad, and the
 * backward pass only looks at those: neither reads the map before pooling again. Of equal values the first
 * place counts (rows first), as in PyTorch.
 *
 * A PReLU before pooling is done on the way: values are compared by it, and x is kept only where the maxima are, which is all
 * that the gradient of PReLU needs, on the pooled map instead of the whole one. (Slopes may be negative: the greatest x
 * would not do.)
 *
 * Both walk down strips two columns wide (of windows, or of blocks of stride × stride inputs), so that a row is loaded once.
 */
import { type BufferBinding, f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import {
  bytesPerQuad,
  ceilDiv,
  DIVIDE,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  write,
} from '../tensor.js';
import type { PoolWindow } from './window.js';

/** Columns of a strip. */
const COLUMNS = 2;
const LOWEST = 'vec4<f32>(-3.4028234e38)';

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const lines = (n: number, f: (i: number) => string) => range(n).map(f).join('\n');
const words = <B>(ref: B, write: boolean): BufferBinding<B> => ({
  name: 'places',
  ref,
  element: 'u32',
  write,
});

/** The places of a pooled map as a tensor: a u32 a quad, four of them in an element. */
export const placesShape = (pooled: readonly number[]): number[] => [ceilDiv(quadsOf(pooled), 4), 4];

/** Grid, uniforms and opening of a walk down strips of a [height, width] map of windows or blocks. */
function strips(shape: readonly number[], height: number, width: number, traits: DeviceTraits) {
  const [n, , , c] = shape;
  const cpu = traits.kind === 'cpu';
  const rows = cpu ? height : 4;
  const size = cpu ? 8 : 64;
  const [runs, down] = [ceilDiv(width, COLUMNS), ceilDiv(height, rows)];
  const count = n * down * runs * quads(c);
  return {
    workgroups: grid(count, size),
    uniforms: {
      count: u32(count),
      channel_quads: u32(quads(c)),
      runs: u32(runs),
      strips: u32(down),
      rows: u32(rows),
      height: u32(height),
      per_quads: f32(1 / quads(c)),
      per_run: f32(1 / runs),
      per_strip: f32(1 / down),
    },
    open: `${DIVIDE}
${eachItem(size)}
  let place = divide(i, params.channel_quads, params.per_quads);
  let q = i - place * params.channel_quads;
  let strip = divide(place, params.runs, params.per_run);
  let n = divide(strip, params.strips, params.per_strip);
  let left = (place - strip * params.runs) * ${COLUMNS}u;
  let top = (strip - n * params.strips) * params.rows;
  let rows = min(params.rows, params.height - top);`,
  };
}

const sizes = (map: readonly number[], pooled: readonly number[], w: PoolWindow) => ({
  in_h: u32(map[1]),
  in_w: u32(map[2]),
  out_h: u32(pooled[1]),
  out_w: u32(pooled[2]),
  padding: u32(w.padding),
});

export interface MaxPoolTraining<B> {
  x: Operand<B>;
  window: PoolWindow;
  y: Operand<B>;
  /** `placesShape`. */
  places: B;
  /** PReLU before pooling: its slopes [Cp], and where x itself at those places goes, in the shape of y. */
  prelu?: { slope: B; kept: Operand<B> };
}

/** y = the greatest x of a window, or PReLU(x). */
export function maxPoolTraining<B>(c: MaxPoolTraining<B>, traits: DeviceTraits): KernelCall<B>[] {
  const { x, y, prelu, window: w } = c;
  const { kernel, stride } = w;
  if (kernel > 15) throw new Error(`maxPool: a window of ${kernel} has places that a byte cannot tell.`);
  const walk = strips(y.shape, y.shape[1], y.shape[2], traits);
  const columns = stride * (COLUMNS - 1) + kernel;
  const greatest = (list: readonly string[]) => list.reduce((best, next) => `greater(${best}, ${next})`);
  const last = kernel - 1;
  const body = `// A value, what it is compared by, and its place.
struct Best { key: vec4<f32>, value: vec4<f32>, place: vec4<u32> }
fn greater(a: Best, b: Best) -> Best {
  // Only a greater one takes over: the first of equal ones stays.
  let more = b.key > a.key;
  return Best(select(a.key, b.key, more), select(a.value, b.value, more), select(a.place, b.place, more));
}
fn later(a: Best, places: u32) -> Best { return Best(a.key, a.value, a.place + vec4<u32>(places)); }
fn candidate(v: vec4<f32>, alpha: vec4<f32>, valid: bool, place: u32) -> Best {
  let key = ${prelu ? 'select(alpha * v, v, v > vec4<f32>(0.0))' : 'v'};
  return Best(select(${LOWEST}, key, valid), v, vec4<u32>(place));
}
${walk.open}
  let alpha = ${prelu ? 'slope[q]' : 'vec4<f32>(0.0)'};
  // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
  let ix = left * ${stride}u - params.padding;
${lines(columns, (j) => `  let in${j} = ix + ${j}u < params.in_w;`)}
  // The best of the last rows within the columns of each window.
${lines(kernel, (r) => lines(COLUMNS, (o) => `  var r${r}_${o}: Best;`))}
  var to = ((n * params.out_h + top) * params.out_w + left) * params.channel_quads + q;
  var wait = ${last}u;
  let turns = (rows - 1u) * ${stride}u + ${kernel}u;
  for (var turn = 0u; turn < turns; turn++) {
    let iy = top * ${stride}u + turn - params.padding;
    let inside = iy < params.in_h;
    let line = (n * params.in_h + iy) * params.in_w + ix;
${lines(columns, (j) => `    let x${j} = load_x(select(0u, line + ${j}u, inside && in${j}) * params.channel_quads + q);`)}
${lines(COLUMNS, (o) => {
  const candidates = range(kernel).map((k) => {
    const j = stride * o + k;
    return `candidate(x${j}, alpha, inside && in${j}, ${k}u)`;
  });
  return `${lines(last, (r) => `    r${r}_${o} = r${r + 1}_${o};`)}
    r${last}_${o} = ${greatest(candidates)};`;
})}
    if (wait > 0u) { wait--; continue; }
    wait = ${stride - 1}u;
${lines(COLUMNS, (o) => {
  const rows = range(kernel).map((r) => `later(r${r}_${o}, ${r * kernel}u)`);
  return `    if (left + ${o}u < params.out_w) { keep(${greatest(rows)}, to + ${o}u * params.channel_quads); }`;
})}
    to += params.out_w * params.channel_quads;
  }
}
fn keep(best: Best, to: u32) {
  store_y(to, best.key);
  ${prelu ? 'store_kept(to, best.value);' : ''}
  places[to] = best.place.x | (best.place.y << 8u) | (best.place.z << 16u) | (best.place.w << 24u);
}`;
  return [
    {
      label: `maxPool.training ${kernel}/${stride}${prelu ? ' prelu' : ''}`,
      uniforms: { ...walk.uniforms, ...sizes(x.shape, y.shape, w) },
      buffers: [
        read('x', x),
        ...(prelu
          ? [
              { name: 'slope', ref: prelu.slope, element: 'vec4<f32>', write: false },
              write('kept', prelu.kept),
            ]
          : []),
        write('y', y),
        words(c.places, true),
      ],
      body,
      workgroups: walk.workgroups,
      flops: quadsOf(y.shape) * 4 * kernel * kernel,
      bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype) + quadsOf(y.shape) * (bytesPerQuad(y.dtype) + 4),
    },
  ];
}

export interface MaxPoolBackward<B> {
  dy: Operand<B>;
  places: B;
  window: PoolWindow;
  dx: Operand<B>;
}

/** Gathered: an invocation owns blocks of dx and adds what the windows over them give, so that no two write the same place. */
export function maxPoolBackward<B>(c: MaxPoolBackward<B>, traits: DeviceTraits): KernelCall<B>[] {
  const { dy, dx, window: w } = c;
  const { kernel, stride } = w;
  // The last pixels may lie beyond what the last window starts.
  const [height, width] = [1, 2].map((axis) => ceilDiv(dx.shape[axis] + w.padding, stride));
  const walk = strips(dx.shape, height, width, traits);
  /** Windows that begin before a block and reach into it, along an axis. */
  const before = ceilDiv(kernel, stride) - 1;
  const windows = COLUMNS + before;
  /** What the windows give to pixel (i, r) of a strip's row of blocks. */
  const sum = (i: number, r: number) => {
    const block = Math.floor(r / stride);
    const terms = range(before + 1).flatMap((a) =>
      range(before + 1).flatMap((b) => {
        const [ky, kx] = [i + a * stride, (r % stride) + b * stride];
        if (ky >= kernel || kx >= kernel) return [];
        const of = `${a}_${block + before - b}`;
        return [`select(vec4<f32>(0.0), g${of}, p${of} == vec4<u32>(${ky * kernel + kx}u))`];
      }),
    );
    return terms.join(' + ') || 'vec4<f32>(0.0)';
  };
  const body = `${walk.open}
  let ix = left * ${stride}u - params.padding;
  let ox = left - ${before}u;
${lines(windows, (j) => `  let in${j} = ox + ${j}u < params.out_w;`)}
${lines(before + 1, (a) =>
  lines(windows, (j) => `  var g${a}_${j} = vec4<f32>(0.0); var p${a}_${j} = vec4<u32>(255u);`),
)}
  for (var turn = 0u; turn < rows + ${before}u; turn++) {
    let oy = top + turn - ${before}u;
    let inside = oy < params.out_h;
    let line = (n * params.out_h + oy) * params.out_w + ox;
${lines(
  windows,
  (j) => `    ${range(before)
    .reverse()
    .map((a) => `g${a + 1}_${j} = g${a}_${j}; p${a + 1}_${j} = p${a}_${j};`)
    .join(' ')}
    {
      let valid = inside && in${j};
      let at = select(0u, line + ${j}u, valid) * params.channel_quads + q;
      g0_${j} = load_dy(at);
      p0_${j} = (vec4<u32>(select(0xffffffffu, places[at], valid)) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
    }`,
)}
    if (turn < ${before}u) { continue; }
    let iy = oy * ${stride}u - params.padding;
${lines(
  stride,
  (i) => `    if (iy + ${i}u < params.in_h) {
      let to = ((n * params.in_h + iy + ${i}u) * params.in_w + ix) * params.channel_quads + q;
${lines(
  COLUMNS * stride,
  (r) => `      if (ix + ${r}u < params.in_w) { store_dx(to + ${r}u * params.channel_quads, ${sum(i, r)}); }`,
)}
    }`,
)}
  }
}`;
  return [
    {
      label: `maxPool.backward ${kernel}/${stride}`,
      uniforms: { ...walk.uniforms, ...sizes(dx.shape, dy.shape, w) },
      buffers: [read('dy', dy), words(c.places, false), write('dx', dx)],
      body,
      workgroups: walk.workgroups,
      flops: quadsOf(dy.shape) * 4 * kernel * kernel,
      bytes: quadsOf(dx.shape) * bytesPerQuad(dx.dtype) + quadsOf(dy.shape) * (bytesPerQuad(dy.dtype) + 4),
    },
  ];
}
