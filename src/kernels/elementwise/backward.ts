/**
 * Backward of PReLU and ReLU that stand alone (those after a batch norm are part of its backward):
 *
 *   dx = dy where x > 0, α·dy elsewhere     dα = Σ dy·min(x, 0) over all rows
 *
 * PReLU does both in one pass; the sums of the chunks are added by a second kernel in a fixed order.
 */
import type { KernelCall } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import { columns, finishColumns } from '../columns.js';
import { bytesPerQuad, channelsOf, type Operand, quadsOf, read, vector, write } from '../tensor.js';

export interface ActivationBackward<B> {
  x: Operand<B>;
  dy: Operand<B>;
  dx: Operand<B>;
  /** PReLU's α, [Cp]; ReLU without. */
  slope?: B;
  /** [C] f32, with `slope`. */
  dSlope?: Operand<B>;
  temporary(shape: readonly number[], dtype: 'f32'): Operand<B>;
}

export function activationBackward<B>(c: ActivationBackward<B>, traits: DeviceTraits): KernelCall<B>[] {
  const channels = channelsOf(c.x.shape);
  const walk = columns(c.x.shape, traits, true);
  const end = finishColumns(walk, channels, traits);
  const count = quadsOf(c.x.shape);
  const prelu = c.slope !== undefined;
  const partial = prelu ? c.temporary([walk.chunks, channels], 'f32') : undefined;
  const main: KernelCall<B> = {
    label: prelu ? 'prelu.backward' : 'relu.backward',
    uniforms: walk.uniforms,
    buffers: [
      read('x', c.x),
      read('dy', c.dy),
      ...(prelu ? [vector('slope', c.slope!), vector('partial', partial!.ref, true)] : []),
      write('dx', c.dx),
    ],
    body: `${walk.open}
${walk.channels(
  (k) => `  let alpha${k} = ${prelu ? `slope[q${k}]` : 'vec4<f32>(0.0)'};
  var sum${k} = vec4<f32>(0.0);`,
)}
${walk.each(
  (k) => `
    let x = load_x(at);
    let dy = load_dy(at);
    store_dx(at, select(alpha${k} * dy, dy, x > vec4<f32>(0.0)));
    ${prelu ? `sum${k} = fma(dy, min(x, vec4<f32>(0.0)), sum${k});` : ''}`,
)}
  ${prelu ? walk.channels((k) => `partial[chunk * params.quads + q${k}] = sum${k};`) : ''}
}`,
    workgroups: walk.workgroups,
    flops: count * 4 * (prelu ? 5 : 1),
    bytes: count * (bytesPerQuad(c.x.dtype) + bytesPerQuad(c.dy.dtype) + bytesPerQuad(c.dx.dtype)),
  };
  if (!prelu) return [main];
  return [
    main,
    {
      label: 'prelu.backward.finish',
      uniforms: end.uniforms,
      buffers: [vector('partial', partial!.ref), vector('d_slope', c.dSlope!.ref, true)],
      body: `${end.open({ sum: 'vec4<f32>' }, 'sum += partial[k * params.count + q];')}
  d_slope[q] = sum;
}`,
      workgroups: end.workgroups,
      flops: walk.chunks * walk.quads * 4,
      bytes: walk.chunks * walk.quads * 16,
    },
  ];
}
