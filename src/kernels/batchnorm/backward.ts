/**
 * Backward of batch norm by batch statistics with its activation. With z = x·scale + shift, x̂ = (x − μ)/√(σ²+ε),
 * and dz = dy where z > 0, α·dy elsewhere (PReLU; 0 for ReLU, dy without activation):
 *
 *   dβ = Σ dz     dγ = Σ dz·x̂     dα = Σ dy·min(z, 0)
 *   dx = scale·(dz − dβ/M − x̂·dγ/M)     (+ a gradient that x has from elsewhere, a residual branch)
 *
 * Two passes over x and dy, which is the least there can be: the three sums in one, dx in the other. z is computed again
 * rather than stored. With fixed statistics (running averages) dx = scale·dz.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { columns, finishColumns } from '../columns.js';
import { bytesPerQuad, channelsOf, type Operand, quadsOf, read, write } from '../tensor.js';
import type { ColumnActivation } from './forward.js';

export interface BatchNormBackward<B> {
  x: Operand<B>;
  dy: Operand<B>;
  statistics: Operand<B>;
  activation: ColumnActivation;
  slope?: B;
  /** The statistics do not depend on x. */
  fixed: boolean;
  extra?: Operand<B>;
  dx: Operand<B>;
  /** [C] f32 each. */
  dWeight: Operand<B>;
  dBias: Operand<B>;
  dSlope?: Operand<B>;
  temporary(shape: readonly number[], dtype: 'f32'): Operand<B>;
}

const vector = <B>(name: string, ref: B, write = false) => ({ name, ref, element: 'vec4<f32>', write });

const DZ: Record<ColumnActivation, string> = {
  none: 'dy',
  relu: 'select(vec4<f32>(0.0), dy, z > vec4<f32>(0.0))',
  prelu: 'select(alpha * dy, dy, z > vec4<f32>(0.0))',
};

export function batchNormBackward<B>(c: BatchNormBackward<B>, traits: DeviceTraits): KernelCall<B>[] {
  const channels = channelsOf(c.x.shape);
  const walk = columns(c.x.shape, traits, true);
  const end = finishColumns(walk, channels, traits);
  const apply = columns(c.x.shape, traits);
  const sums = c.dSlope ? 3 : 2;
  const partial = c.temporary([walk.chunks * sums, channels], 'f32');
  const coefficients = c.temporary([2, channels], 'f32');
  const count = quadsOf(c.x.shape);
  const active = c.activation !== 'none';
  const slope = c.slope !== undefined ? [vector('slope', c.slope)] : [];
  const loadChannel = `
  let scale = statistics[q];
  let shift = statistics[params.quads + q];
  let mean = statistics[2u * params.quads + q];
  let inverse = statistics[3u * params.quads + q];
  ${c.slope !== undefined ? 'let alpha = slope[q];' : ''}`;
  const gradient = `
    let x = load_x(at);
    let dy = load_dy(at);
    ${active ? 'let z = fma(x, scale, shift);' : ''}
    let dz = ${DZ[c.activation]};`;
  const name = active ? ` ${c.activation}` : '';
  return [
    {
      label: `batchNorm.backward.sums${name}`,
      uniforms: walk.uniforms,
      buffers: [
        read('x', c.x),
        read('dy', c.dy),
        vector('statistics', c.statistics.ref),
        ...slope,
        vector('partial', partial.ref, true),
      ],
      body: `${walk.open}${loadChannel}
  var d_bias = vec4<f32>(0.0);
  var d_weight = vec4<f32>(0.0);
  var d_slope = vec4<f32>(0.0);
${walk.each(`${gradient}
    d_bias += dz;
    d_weight = fma(dz, (x - mean) * inverse, d_weight);
    ${c.dSlope ? 'd_slope = fma(dy, min(z, vec4<f32>(0.0)), d_slope);' : ''}`)}
  let to = chunk * ${sums}u * params.quads + q;
  partial[to] = d_bias;
  partial[to + params.quads] = d_weight;
  ${c.dSlope ? 'partial[to + 2u * params.quads] = d_slope;' : ''}
}`,
      workgroups: walk.workgroups,
      flops: count * 4 * (active ? 10 : 5),
      bytes: count * (bytesPerQuad(c.x.dtype) + bytesPerQuad(c.dy.dtype)),
    },
    {
      label: 'batchNorm.backward.finish',
      uniforms: end.uniforms,
      buffers: [
        vector('partial', partial.ref),
        vector('statistics', c.statistics.ref),
        vector('d_weight', c.dWeight.ref, true),
        vector('d_bias', c.dBias.ref, true),
        ...(c.dSlope ? [vector('d_slope', c.dSlope.ref, true)] : []),
        vector('coefficients', coefficients.ref, true),
      ],
      body: `${end.open(
        { bias: 'vec4<f32>', weight: 'vec4<f32>', ...(c.dSlope && { slope: 'vec4<f32>' }) },
        `    let row = k * ${sums}u * params.count + q;
    bias += partial[row];
    weight += partial[row + params.count];
    ${c.dSlope ? 'slope += partial[row + 2u * params.count];' : ''}`,
      )}
  d_weight[q] = weight;
  d_bias[q] = bias;
  ${c.dSlope ? 'd_slope[q] = slope;' : ''}
  let share = statistics[q] * (${c.fixed ? '0.0' : '-1.0 / f32(params.rows)'});
  coefficients[q] = share * weight * statistics[3u * params.count + q];
  coefficients[params.count + q] = share * bias;
}`,
      workgroups: end.workgroups,
      flops: walk.chunks * walk.quads * 4 * sums,
      bytes: walk.chunks * walk.quads * 16 * sums,
    },
    {
      label: `batchNorm.backward.apply${name}${c.extra ? ' add' : ''}`,
      uniforms: apply.uniforms,
      buffers: [
        read('x', c.x),
        read('dy', c.dy),
        vector('statistics', c.statistics.ref),
        ...slope,
        vector('coefficients', coefficients.ref),
        ...(c.extra ? [read('extra', c.extra)] : []),
        write('dx', c.dx),
      ],
      body: `${apply.open}${loadChannel}
  let by_x = coefficients[q];
  let constant = coefficients[params.quads + q];
${apply.each(`${gradient}
    store_dx(at, fma(dz, scale, fma(x - mean, by_x, constant))${c.extra ? ' + load_extra(at)' : ''});`)}
}`,
      workgroups: apply.workgroups,
      flops: count * 4 * (active ? 9 : 5),
      bytes:
        count *
        (bytesPerQuad(c.x.dtype) +
          bytesPerQuad(c.dy.dtype) +
          bytesPerQuad(c.dx.dtype) +
          (c.extra ? bytesPerQuad(c.extra.dtype) : 0)),
    },
  ];
}
