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
import { f32, type KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { columns, finishColumns } from '../columns.js';
import { bytesPerQuad, channelsOf, type Operand, quadsOf, read, write } from '../tensor.js';

export type ColumnActivation = 'none' | 'relu' | 'prelu';

export interface BatchNormStatistics<B> {
  x: Operand<B>;
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

const vector = <B>(name: string, ref: B, write = false) => ({ name, ref, element: 'vec4<f32>', write });

export function batchNormStatistics<B>(c: BatchNormStatistics<B>, traits: DeviceTraits): KernelCall<B>[] {
  const channels = channelsOf(c.x.shape);
  const walk = columns(c.x.shape, traits, true);
  const end = finishColumns(walk, channels, traits);
  const partial = c.temporary([walk.chunks * 2, channels], 'f32');
  const count = quadsOf(c.x.shape);
  return [
    {
      label: 'batchNorm.statistics',
      uniforms: walk.uniforms,
      buffers: [read('x', c.x), vector('partial', partial.ref, true)],
      body: `${walk.open}
  let shift = load_x(first * params.quads + q);
  var sum = vec4<f32>(0.0);
  var squares = vec4<f32>(0.0);
${walk.each('let d = load_x(at) - shift; sum += d; squares = fma(d, d, squares);', 4)}
  let mean = sum / f32(length);
  partial[chunk * 2u * params.quads + q] = shift + mean;
  partial[(chunk * 2u + 1u) * params.quads + q] = max(squares - sum * mean, vec4<f32>(0.0));
}`,
      workgroups: walk.workgroups,
      flops: count * 4 * 4,
      bytes: count * bytesPerQuad(c.x.dtype),
    },
    {
      label: 'batchNorm.statistics.finish',
      uniforms: { ...end.uniforms, eps: f32(c.eps) },
      buffers: [
        vector('partial', partial.ref),
        vector('weight', c.weight),
        vector('bias', c.bias),
        vector('statistics', c.statistics.ref, true),
        vector('batch_mean', c.batchMean.ref, true),
        vector('batch_variance', c.batchVariance.ref, true),
      ],
      body: `${end.open(
        { mean: 'vec4<f32>', squares: 'vec4<f32>', seen: 'f32' },
        `    let n = f32(min(params.per_chunk, params.rows - k * params.per_chunk));
    let delta = partial[k * 2u * params.count + q] - mean;
    let total = seen + n;
    mean += delta * (n / total);
    squares += partial[(k * 2u + 1u) * params.count + q] + delta * delta * (seen * n / total);
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
      flops: walk.chunks * walk.quads * 4 * 8,
      bytes: walk.chunks * walk.quads * 32,
    },
  ];
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
  let scale = statistics[q];
  let shift = statistics[params.quads + q];
  ${c.slope !== undefined ? 'let alpha = slope[q];' : ''}
${walk.each(`
    let z = fma(load_x(at), scale, shift);
    store_y(at, ${value}${c.residual ? ' + load_residual(at)' : ''});`)}
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
