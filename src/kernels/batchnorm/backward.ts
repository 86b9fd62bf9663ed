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
import { bytesPerQuad, channelsOf, type Operand, quadsOf, read, vector, write } from '../tensor.js';
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

/** WGSL of dz from `dy`, `z` and `alpha`. */
export const DZ: Record<ColumnActivation, string> = {
  none: 'dy',
  relu: 'select(vec4<f32>(0.0), dy, z > vec4<f32>(0.0))',
  prelu: 'select(alpha * dy, dy, z > vec4<f32>(0.0))',
};

/** WGSL between the passes: from the sums `bias` and `weight` over `params.rows` rows what the second pass needs. */
export const coefficientsText = (fixed: boolean) => `
  let share = statistics[q] * (${fixed ? '0.0' : '-1.0 / f32(params.rows)'});
  coefficients[q] = share * weight * statistics[3u * params.count + q];
  coefficients[params.count + q] = share * bias;`;

/** What both passes begin with. */
function texts<B>(c: Pick<BatchNormBackward<B>, 'activation' | 'slope'>) {
  const active = c.activation !== 'none';
  return {
    active,
    name: active ? ` ${c.activation}` : '',
    slope: c.slope !== undefined ? [vector('slope', c.slope)] : [],
    loadChannel: (k: number) => `
  let scale${k} = statistics[q${k}];
  let shift${k} = statistics[params.quads + q${k}];
  let mean${k} = statistics[2u * params.quads + q${k}];
  let inverse${k} = statistics[3u * params.quads + q${k}];
  ${c.slope !== undefined ? `let alpha${k} = slope[q${k}];` : ''}`,
    gradient: (k: number) => `
    let x = load_x(at);
    let dy = load_dy(at);
    ${active ? `let z = fma(x, scale${k}, shift${k});` : ''}
    ${c.slope !== undefined ? `let alpha = alpha${k};` : ''}
    let dz = ${DZ[c.activation]};`,
  };
}

export function batchNormBackward<B>(c: BatchNormBackward<B>, traits: DeviceTraits): KernelCall<B>[] {
  const channels = channelsOf(c.x.shape);
  const walk = columns(c.x.shape, traits, true);
  const end = finishColumns(walk, channels, traits);
  const sums = c.dSlope ? 3 : 2;
  const partial = c.temporary([walk.chunks * sums, channels], 'f32');
  const coefficients = c.temporary([2, channels], 'f32');
  const count = quadsOf(c.x.shape);
  const { slope, loadChannel, gradient, name, active } = texts(c);
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
      body: `${walk.open}
${walk.channels(
  (k) => `${loadChannel(k)}
  var d_bias${k} = vec4<f32>(0.0);
  var d_weight${k} = vec4<f32>(0.0);
  var d_slope${k} = vec4<f32>(0.0);`,
)}
${walk.each(
  (k) => `${gradient(k)}
    d_bias${k} += dz;
    d_weight${k} = fma(dz, (x - mean${k}) * inverse${k}, d_weight${k});
    ${c.dSlope ? `d_slope${k} = fma(dy, min(z, vec4<f32>(0.0)), d_slope${k});` : ''}`,
)}
  let to = chunk * ${sums}u * params.quads;
${walk.channels(
  (k) => `  partial[to + q${k}] = d_bias${k};
  partial[to + params.quads + q${k}] = d_weight${k};
  ${c.dSlope ? `partial[to + 2u * params.quads + q${k}] = d_slope${k};` : ''}`,
)}
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
${coefficientsText(c.fixed)}
}`,
      workgroups: end.workgroups,
      flops: walk.chunks * walk.quads * 4 * sums,
      bytes: walk.chunks * walk.quads * 16 * sums,
    },
    batchNormBackwardApply(c, coefficients, traits),
  ];
}

/**
 * The second pass: dx from x, dy and the sums.
 * @param coefficients [2, C] f32: what x − μ counts in dx, and a constant.
 */
export function batchNormBackwardApply<B>(
  c: Pick<BatchNormBackward<B>, 'x' | 'dy' | 'statistics' | 'activation' | 'slope' | 'extra' | 'dx'>,
  coefficients: Operand<B>,
  traits: DeviceTraits,
): KernelCall<B> {
  const apply = columns(c.x.shape, traits);
  const count = quadsOf(c.x.shape);
  const { slope, loadChannel, gradient, name, active } = texts(c);
  return {
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
    body: `${apply.open}
${apply.channels(
  (k) => `${loadChannel(k)}
  let by_x${k} = coefficients[q${k}];
  let constant${k} = coefficients[params.quads + q${k}];`,
)}
${apply.each(
  (k) => `${gradient(k)}
    store_dx(at, fma(dz, scale${k}, fma(x - mean${k}, by_x${k}, constant${k}))${c.extra ? ' + load_extra(at)' : ''});`,
)}
}`,
    workgroups: apply.workgroups,
    flops: count * 4 * (active ? 9 : 5),
    bytes:
      count *
      (bytesPerQuad(c.x.dtype) +
        bytesPerQuad(c.dy.dtype) +
        bytesPerQuad(c.dx.dtype) +
        (c.extra ? bytesPerQuad(c.extra.dtype) : 0)),
  };
}
