/**
 * Batch norm by the statistics of the batch (training), over the rows of a [rows, C] matrix:
 *
 *   μ = Σ x / M     σ² = Σ (x − μ)² / M     y = γ·(x − μ)/√(σ² + ε) + β     then PReLU or ReLU, then + residual
 *
 * (Ioffe & Szegedy 2015.) `batchNormStatistics` leaves four rows [4, C] that forward and backward need:
 * scale γ/√(σ²+ε), shift β − μ·scale, mean, 1/√(σ²+ε); and for the running averages the mean and the unbiased variance
 * M/(M−1)·σ², as PyTorch takes them. `batchNormApply` is then one multiply-add an element.
 *
 * The squares are taken about the first value of each chunk and chunks are joined by the formula of Chan,
 * Golub & LeVeque (1979), so that a mean far from zero costs no precision.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { columns, finishColumns } from '../columns.js';
import {
  bytesPerQuad,
  channelsOf,
  DIVIDE,
  type Operand,
  quads,
  quadsOf,
  read,
  rowsOf,
  vector,
  write,
} from '../tensor.js';
import { beginChunk, endChunk, intoChunk, type PartialStatistics } from './partial.js';

export type ColumnActivation = 'none' | 'relu' | 'prelu';

export interface BatchNormStatistics<B> {
  x: Operand<B>;
  /** Left by the kernel that wrote x; x is read where it is missing. */
  known?: PartialStatistics<B>;
  /** [Cp]. */
  weight: B;
  bias: B;
  eps: number;
  /** [4, C] f32: scale, shift, mean, inverse deviation. */
  statistics: Operand<B>;
  /** [C] f32: what the running averages take in. */
  batchMean: Operand<B>;
  batchVariance: Operand<B>;
  temporary(shape: readonly number[], dtype: 'f32'): Operand<B>;
}

export function batchNormStatistics<B>(c: BatchNormStatistics<B>, traits: DeviceTraits): KernelCall<B>[] {
  if (c.known) return [joinStatistics(c, c.known, traits)];
  const { call, known } = chunkStatistics(c, traits);
  return [call, joinStatistics(c, known, traits)];
}

function chunkStatistics<B>(c: BatchNormStatistics<B>, traits: DeviceTraits) {
  const walk = columns(c.x.shape, traits, true);
  const partial = c.temporary([walk.chunks * 2, channelsOf(c.x.shape)], 'f32');
  const count = quadsOf(c.x.shape);
  const call: KernelCall<B> = {
    label: 'batchNorm.statistics',
    uniforms: walk.uniforms,
    buffers: [read('x', c.x), vector('partial', partial.ref, true)],
    body: `${walk.open}
${walk.channels((k) => beginChunk(`load_x(first * params.quads + q${k})`, k))}
${walk.each((k) => intoChunk('load_x(at)', k), 4)}
${walk.channels((k) => endChunk(`chunk * 2u * params.quads + q${k}`, 'params.quads', 'f32(length)', k))}
}`,
    workgroups: walk.workgroups,
    flops: count * 4 * 4,
    bytes: count * bytesPerQuad(c.x.dtype),
  };
  const chunks = { strips: walk.chunks, most: walk.uniforms.per_chunk.value, total: walk.rows, times: 1 };
  return { call, known: { partial, chunks } };
}

function joinStatistics<B>(
  c: BatchNormStatistics<B>,
  { partial, chunks }: PartialStatistics<B>,
  traits: DeviceTraits,
): KernelCall<B> {
  const channels = channelsOf(c.x.shape);
  const width = quads(channels);
  const count = rowsOf(partial.shape) / 2;
  const end = finishColumns({ chunks: count, quads: width, rows: rowsOf(c.x.shape) }, channels, traits);
  return {
    label: 'batchNorm.statistics.finish',
    uniforms: {
      ...end.uniforms,
      eps: f32(c.eps),
      strips: u32(chunks.strips),
      per_strips: f32(1 / chunks.strips),
      most: u32(chunks.most),
      total: u32(chunks.total),
      times: u32(chunks.times),
    },
    buffers: [
      vector('partial', partial.ref),
      vector('weight', c.weight),
      vector('bias', c.bias),
      vector('statistics', c.statistics.ref, true),
      vector('batch_mean', c.batchMean.ref, true),
      vector('batch_variance', c.batchVariance.ref, true),
    ],
    body: `${DIVIDE}
${end.open(
  { mean: 'vec4<f32>', squares: 'vec4<f32>', seen: 'f32' },
  `    let strip = k - divide(k, params.strips, params.per_strips) * params.strips;
    let n = f32(params.times * min(params.most, params.total - strip * params.most));
    let delta = partial[k * 2u * params.count + q] - mean;
    let total = seen + n;
    let share = n / total;
    mean += delta * share;
    squares += partial[(k * 2u + 1u) * params.count + q] + delta * delta * (seen * share);
    seen = total;`,
  `let delta = other_mean - mean;
      let total = max(seen + other_seen, 1.0);
      mean += delta * (other_seen / total);
      squares += other_squares + delta * delta * (seen * other_seen / total);
      seen += other_seen;`,
)}
  let rows = f32(params.rows);
  let inverse = select(vec4<f32>(0.0), 1.0 / sqrt(squares / rows + params.eps), real(q));
  let scale = weight[q] * inverse;
  statistics[q] = scale;
  statistics[params.count + q] = bias[q] - mean * scale;
  statistics[2u * params.count + q] = mean;
  statistics[3u * params.count + q] = inverse;
  batch_mean[q] = mean;
  batch_variance[q] = squares / (rows - 1.0);
}`,
    workgroups: end.workgroups,
    flops: count * width * 4 * 8,
    bytes: count * width * 32,
  };
}

/** The rows of `statistics` from running averages: batch norm that is frozen or evaluated. */
export function runningStatistics<B>(c: {
  weight: B;
  bias: B;
  mean: B;
  variance: B;
  eps: number;
  statistics: Operand<B>;
}): KernelCall<B>[] {
  const channels = channelsOf(c.statistics.shape);
  const cpu = { kind: 'cpu' } as DeviceTraits;
  const end = finishColumns(columns([1, channels], cpu), channels, cpu);
  return [
    {
      label: 'batchNorm.running',
      uniforms: { count: end.uniforms.count, channels: end.uniforms.channels, eps: f32(c.eps) },
      buffers: [
        vector('weight', c.weight),
        vector('bias', c.bias),
        vector('mean', c.mean),
        vector('variance', c.variance),
        vector('statistics', c.statistics.ref, true),
      ],
      body: `${end.open()}
  let inverse = select(vec4<f32>(0.0), 1.0 / sqrt(variance[q] + params.eps), real(q));
  let scale = weight[q] * inverse;
  statistics[q] = scale;
  statistics[params.count + q] = bias[q] - mean[q] * scale;
  statistics[2u * params.count + q] = mean[q];
  statistics[3u * params.count + q] = inverse;
}`,
      workgroups: end.workgroups,
      flops: channels * 4,
      bytes: channels * 32,
    },
  ];
}

export interface BatchNormApply<B> {
  x: Operand<B>;
  statistics: Operand<B>;
  activation: ColumnActivation;
  /** PReLU's α, [Cp]. */
  slope?: B;
  residual?: Operand<B>;
  y: Operand<B>;
}

/** y = activation(x·scale + shift) + residual. */
export function batchNormApply<B>(c: BatchNormApply<B>, traits: DeviceTraits): KernelCall<B>[] {
  const walk = columns(c.x.shape, traits);
  const count = quadsOf(c.x.shape);
  const value = {
    none: 'z',
    relu: 'max(z, vec4<f32>(0.0))',
    prelu: 'max(z, vec4<f32>(0.0)) + alpha * min(z, vec4<f32>(0.0))',
  }[c.activation];
  return [
    {
      label: `batchNorm.apply${c.activation === 'none' ? '' : ` ${c.activation}`}${c.residual ? ' add' : ''}`,
      uniforms: walk.uniforms,
      buffers: [
        read('x', c.x),
        vector('statistics', c.statistics.ref),
        ...(c.slope !== undefined ? [vector('slope', c.slope)] : []),
        ...(c.residual ? [read('residual', c.residual)] : []),
        write('y', c.y),
      ],
      body: `${walk.open}
${walk.channels(
  (k) => `  let scale${k} = statistics[q${k}];
  let shift${k} = statistics[params.quads + q${k}];
  ${c.slope !== undefined ? `let alpha${k} = slope[q${k}];` : ''}`,
)}
${walk.each(
  (k) => `
    let z = fma(load_x(at), scale${k}, shift${k});
    ${c.slope !== undefined ? `let alpha = alpha${k};` : ''}
    store_y(at, ${value}${c.residual ? ' + load_residual(at)' : ''});`,
)}
}`,
      workgroups: walk.workgroups,
      flops: count * 4 * (c.activation === 'prelu' ? 6 : 2),
      bytes:
        count *
        (bytesPerQuad(c.x.dtype) +
          bytesPerQuad(c.y.dtype) +
          (c.residual ? bytesPerQuad(c.residual.dtype) : 0)),
    },
  ];
}
