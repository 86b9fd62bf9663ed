/**
 * Batch norm by batch statistics with PReLU and the depthwise 3×3 convolution that is all that uses it, in a training step
 * on software adapters, where every quad that is loaded or stored counts:
 *
 *   y = conv(a, w)     a = max(z, 0) + α·min(z, 0)     z = x·scale + shift
 *
 * Forward (depthwise.ts) takes x through norm and PReLU as it is loaded, so a is never stored. Backward walks along strips
 * of x once: with the columns of dy that a column of x meets in registers, it makes
 *
 *   g = dL/da, a column of it; dL/dw; and the sums of batch norm's gradient over x and g (batchnorm/backward.ts),
 *
 * which are three passes otherwise. What is left is dx from x and g.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { batchNormBackwardApply, coefficientsText, DZ } from '../batchnorm/backward.js';
import { finishColumns } from '../columns.js';
import {
  bytesPerQuad,
  ceilDiv,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  vector,
  write,
} from '../tensor.js';
import { convFlops, geometryUniforms } from './geometry.js';
import type { Temporary } from './grad_types.js';
import { isDepthwise, isStrip, lanesOf } from './plan.js';
import { lines, range } from './subgroup.js';
import type { Conv2dShape } from './types.js';

export const takesNormDepthwise = (s: Conv2dShape, traits: DeviceTraits): boolean =>
  traits.kind === 'cpu' && isDepthwise(s) && isStrip(s);

export interface NormDepthwiseBackward<B> {
  shape: Conv2dShape;
  x: Operand<B>;
  dy: Operand<B>;
  /** [4, C] f32, see batchnorm/forward.ts. */
  statistics: Operand<B>;
  /** [Cp] f32. */
  slope: B;
  /** [3][3][Cp] f32, as its gradient. */
  weight: B;
  /** The statistics do not depend on x. */
  fixed: boolean;
  dx: Operand<B>;
  /** [C] f32 each. */
  dNormWeight: Operand<B>;
  dNormBias: Operand<B>;
  dSlope: Operand<B>;
  dWeight: Operand<B>;
  temporary: Temporary<B>;
}

/** Invocations that keep a few cores busy: each leaves twelve sums to be added. */
const INVOCATIONS = 256;
/** Rows of x in a strip. */
const rowsOf = (stride: number) => (stride === 1 ? 4 : 2);
/** What is summed over x and dy: for the norm, the slope and the nine weights. */
const SUMS = ['bias', 'weight', 'slope', ...range(9).map((t) => `d${t}`)];

/**
 * A column of x in a strip. Its values get the column's `name`.
 * @param ix where it lies.
 * @param meets the columns of dy that reach it, by the taps' kx.
 * @returns WGSL that loads it and makes g; that adds to the sums; that stores g. Columns that are taken together are
 *   stored together: a store between makes the next loads wait.
 */
function column(name: string, ix: string, stride: number, meets: readonly [kx: number, dy: string][]) {
  const height = rowsOf(stride);
  /** The taps that reach row r, and by which rows of dy. */
  const taps = (r: number) =>
    meets.flatMap(([kx, dy]) =>
      range(3)
        .map((ky) => ({ t: 3 * ky + kx, j: stride === 1 ? r + 2 - ky : 1 + (r - ky) / 2 }))
        .filter(({ j }) => Number.isInteger(j))
        .map(({ t, j }) => ({ t, dy: `${dy}${j}` })),
    );
  const load = (r: number) => `
      let here${name}${r} = live${name} && in${r};
      let x${name}${r} = load_x(select(0u, at${name} + ${r}u * pitch, here${name}${r}));
      let z${name}${r} = fma(x${name}${r}, scale, shift);
      let low${name}${r} = min(z${name}${r}, vec4<f32>(0.0));
      let a${name}${r} = select(vec4<f32>(0.0), fma(alpha, low${name}${r}, max(z${name}${r}, vec4<f32>(0.0))), here${name}${r});
      let g${name}${r} = select(vec4<f32>(0.0), ${taps(r)
        .map(({ t, dy }) => `w${t} * ${dy}`)
        .join(' + ')}, here${name}${r});`;
  // All of a tap together: its sum leaves the registers once.
  const weights = (t: number) =>
    range(height)
      .flatMap((r) =>
        taps(r)
          .filter((tap) => tap.t === t)
          .map(({ dy }) => `d${t} = fma(a${name}${r}, ${dy}, d${t});`),
      )
      .join(' ');
  const norm = (r: number) => `
      {
        let z = z${name}${r};
        let dy = g${name}${r};
        let dz = ${DZ.prelu};
        bias += dz;
        weight = fma(dz, (x${name}${r} - mean) * inverse, weight);
        slope = fma(dy, low${name}${r}, slope);
      }`;
  return {
    load: `
      let ix${name} = ${ix};
      let live${name} = ix${name} < params.in_w;
      let at${name} = ((n * params.in_h + iy) * params.in_w + ix${name}) * params.in_q + quad;
${lines(height, load)}`,
    add: `${lines(9, weights)}\n${lines(height, norm)}`,
    store: lines(
      height,
      (r) => `      if (here${name}${r}) { store_g(at${name} + ${r}u * pitch, g${name}${r}); }`,
    ),
  };
}

export function normDepthwiseBackward<B>(c: NormDepthwiseBackward<B>, traits: DeviceTraits): KernelCall<B>[] {
  const s = c.shape;
  const { stride } = s;
  const width = quads(s.outChannels);
  const height = rowsOf(stride);
  const size = lanesOf(traits);
  const g = c.temporary(c.x.shape, 'f32');
  // At stride 2 strips begin, and turns do, with what the first tap of a row or column of dy reaches.
  const before = stride === 1 ? 0 : s.padding;
  const inputs = stride === 1 ? height + 2 : height / 2 + 1;
  const strips = ceilDiv(s.inHeight + before, height);
  const units = s.batch * strips;
  const chunk = ceilDiv(units, Math.min(units, ceilDiv(INVOCATIONS, width)));
  const chunks = ceilDiv(units, chunk);
  const partial = c.temporary([chunks * SUMS.length, width * 4], 'f32').ref;
  const coefficients = c.temporary([2, s.outChannels], 'f32');
  // Stride 1: a turn takes column `turn − 2` of x with three columns of dy, r the one just loaded. Stride 2: column `turn`
  // of dy and the one before reach an even column of x, it alone the odd one after.
  const kept = stride === 1 ? ['p', 'q', 'r'] : ['q', 'r'];
  const taken =
    stride === 1
      ? [column('a', 'turn - 2u', 1, [[2, 'p'], [1, 'q'], [0, 'r']])] // biome-ignore format: a table
      : [
          column('a', 'turn * 2u - params.padding', 2, [[2, 'q'], [0, 'r']]), // biome-ignore format: a table
          column('b', 'turn * 2u + 1u - params.padding', 2, [[1, 'r']]),
        ];
  const work = (['load', 'add', 'store'] as const)
    .flatMap((part) => taken.map((col) => col[part]))
    .join('\n');
  const rows = s.batch * s.inHeight * s.inWidth;
  const end = finishColumns({ chunks, quads: width, rows }, s.outChannels, traits);
  const count = quadsOf(c.x.shape);
  return [
    {
      label: `conv2d.gradients.depthwise 3×3 s${stride} norm`,
      uniforms: {
        ...geometryUniforms(s),
        count: u32(chunks * width),
        chunk: u32(chunk),
        units: u32(units),
        strips: u32(strips),
        turns: u32(stride === 1 ? s.inWidth + 2 : ceilDiv(s.inWidth + before, 2)),
      },
      buffers: [
        read('x', c.x),
        read('dy', c.dy),
        vector('statistics', c.statistics.ref),
        vector('slopes', c.slope),
        vector('weights', c.weight),
        write('g', g),
        vector('partial', partial, true),
      ],
      body: `${eachItem(size)}
  let quad = i % params.out_q;
  let split = i / params.out_q;
  let scale = statistics[quad];
  let shift = statistics[params.out_q + quad];
  let mean = statistics[2u * params.out_q + quad];
  let inverse = statistics[3u * params.out_q + quad];
  let alpha = slopes[quad];
  let pitch = params.in_w * params.in_q;
${lines(9, (t) => `  let w${t} = weights[${t}u * params.out_q + quad];`)}
${SUMS.map((sum) => `  var ${sum} = vec4<f32>(0.0);`).join('\n')}
  for (var unit = split * params.chunk; unit < min((split + 1u) * params.chunk, params.units); unit++) {
    let n = unit / params.strips;
    // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
    let iy = (unit - n * params.strips) * ${height}u${stride === 1 ? '' : ' - params.padding'};
    let oy = ${stride === 1 ? 'iy + params.padding - 2u' : `(unit - n * params.strips) * ${height / 2}u - 1u`};
${lines(height, (r) => `    let in${r} = iy + ${r}u < params.in_h;`)}
${lines(inputs, (j) => `    let out${j} = oy + ${j}u < params.out_h;`)}
${kept.map((k) => lines(inputs, (j) => `    var ${k}${j} = vec4<f32>(0.0);`)).join('\n')}
    for (var turn = 0u; turn < params.turns; turn++) {
      let ox = turn${stride === 1 ? ' + params.padding - 2u' : ''};
      let inside = ox < params.out_w;
      let begin = ((n * params.out_h + oy) * params.out_w + ox) * params.out_q + quad;
${lines(inputs, (j) =>
  kept
    .slice(1)
    .map((k, i) => `      ${kept[i]}${j} = ${k}${j};`)
    .join(' '),
)}
${lines(
  inputs,
  (j) =>
    `      r${j} = select(vec4<f32>(0.0), load_dy(select(0u, begin + ${j}u * params.out_w * params.out_q, out${j} && inside)), out${j} && inside);`,
)}
${stride === 1 ? '      if (turn < 2u) { continue; }' : ''}
${work}
    }
  }
  let to = split * ${SUMS.length}u * params.out_q + quad;
${SUMS.map((sum, k) => `  partial[to + ${k}u * params.out_q] = ${sum};`).join('\n')}
}`,
      workgroups: grid(chunks * width, size),
      flops: 2 * convFlops(s) + count * 4 * 16,
      bytes: count * (bytesPerQuad(c.x.dtype) + 16) + quadsOf(c.dy.shape) * bytesPerQuad(c.dy.dtype),
    },
    {
      label: 'conv2d.gradients.depthwise.finish',
      uniforms: end.uniforms,
      buffers: [
        vector('partial', partial),
        vector('statistics', c.statistics.ref),
        vector('d_norm_weight', c.dNormWeight.ref, true),
        vector('d_norm_bias', c.dNormBias.ref, true),
        vector('d_slope', c.dSlope.ref, true),
        vector('coefficients', coefficients.ref, true),
        vector('d_weight', c.dWeight.ref, true),
      ],
      body: `${end.open(
        Object.fromEntries(SUMS.map((sum) => [sum, 'vec4<f32>' as const])),
        SUMS.map((sum, k) => `    ${sum} += partial[(k * ${SUMS.length}u + ${k}u) * params.count + q];`).join(
          '\n',
        ),
      )}
  d_norm_weight[q] = weight;
  d_norm_bias[q] = bias;
  d_slope[q] = slope;
${lines(9, (t) => `  d_weight[${t}u * params.count + q] = d${t};`)}
${coefficientsText(c.fixed)}
}`,
      workgroups: end.workgroups,
      flops: chunks * width * 4 * SUMS.length,
      bytes: chunks * width * 16 * SUMS.length,
    },
    batchNormBackwardApply(
      { x: c.x, dy: g, statistics: c.statistics, activation: 'prelu', slope: c.slope, dx: c.dx },
      coefficients,
      traits,
    ),
  ];
}
