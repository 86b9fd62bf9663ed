/**
 * What a step does with its gradients, decided on the GPU: their global norm ‖g‖ = √Σ g² over all parameters, clipping
 * to a largest norm (factor min(1, c/‖g‖)), and the loss scale: with an infinite or NaN gradient the step is left out and
 * the scale halved; after `interval` good steps in a row it doubles (Micikevicius et al. 2018).
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { fold } from '../fold.js';
import { eachItem, grid } from '../tensor.js';
import { WORD } from './step_words.js';

/** Partial sums a range of gradients leaves. */
export const NORM_PARTS = 256;

/** @param parts quads, of which this range writes NORM_PARTS from `first` on. */
export function squareSums<B>(c: { length: number; gradients: B; parts: B; first: number }): KernelCall<B>[] {
  return [
    {
      label: 'optimizer.norm',
      uniforms: { count: u32(NORM_PARTS), total: u32(c.length / 4), first: u32(c.first) },
      buffers: [
        { name: 'gradients', ref: c.gradients, element: 'vec4<f32>', write: false },
        { name: 'parts', ref: c.parts, element: 'vec4<f32>', write: true },
      ],
      body: `${eachItem(8)}
  var sum = vec4<f32>(0.0);
  for (var k = i; k < params.total; k += params.count) { let g = gradients[k]; sum = fma(g, g, sum); }
  parts[params.first + i] = sum;
}`,
      workgroups: grid(NORM_PARTS, 8),
      flops: c.length * 2,
      bytes: c.length * 4,
    },
  ];
}

export interface Decision {
  clipNorm?: number;
  /** Adapt the loss scale. */
  dynamic: boolean;
}

/** Of the workgroup that adds the parts. */
const LANES = 64;

/** Good steps after which the scale doubles. */
const SCALE_INTERVAL = 2000;

/** Counts the step, or skips it; leaves factor, norm and flag in the step's words. `parts` where the norm is needed. */
export function decideStep<B>(c: { step: B; parts?: B; partCount: number }, d: Decision): KernelCall<B>[] {
  const squares = fold(LANES, { sum: 'vec4<f32>' }, 'params.parts', '    sum += parts[k];');
  const norm =
    c.parts === undefined
      ? `  let finite = true;
  var factor = 1.0 / scale;`
      : `${squares.sum}
  let square = dot(sum, vec4<f32>(1.0));
  // By the exponent's bits: comparisons with NaN and infinity may be optimised away.
  let finite = (bitcast<u32>(square) & 0x7f800000u) != 0x7f800000u;
  let norm = sqrt(square) / scale;
  step[${WORD.norm}] = bitcast<u32>(norm);
  var factor = 1.0 / scale;
  ${d.clipNorm !== undefined ? 'factor *= min(1.0, params.clip / max(norm, 1e-12));' : ''}`;
  return [
    {
      label: 'optimizer.decide',
      uniforms: { parts: u32(c.partCount), clip: f32(d.clipNorm ?? 0), interval: u32(SCALE_INTERVAL) },
      buffers: [
        { name: 'step', ref: c.step, element: 'u32', write: true },
        ...(c.parts === undefined
          ? []
          : [{ name: 'parts', ref: c.parts, element: 'vec4<f32>', write: false }]),
      ],
      body: `${c.parts === undefined ? '' : squares.memory}
@compute @workgroup_size(${c.parts === undefined ? 1 : LANES})
fn main(@builtin(local_invocation_index) lane: u32) {
  let scale = bitcast<f32>(step[${WORD.lossScale}]);
${norm}
  step[${WORD.factor}] = bitcast<u32>(factor);
  step[${WORD.finite}] = select(0u, 1u, finite);
  if (finite) {
    step[${WORD.step}]++;
    step[${WORD.good}]++;
  } else {
    step[${WORD.skipped}]++;
    step[${WORD.good}] = 0u;
  }
  ${
    d.dynamic
      ? `if (!finite) { step[${WORD.lossScale}] = bitcast<u32>(max(scale * 0.5, 1.0)); }
  else if (step[${WORD.good}] >= params.interval) { step[${WORD.lossScale}] = bitcast<u32>(min(scale * 2.0, 16777216.0)); step[${WORD.good}] = 0u; }`
      : ''
  }
}`,
      workgroups: [1, 1, 1],
      flops: c.partCount * 4,
      bytes: c.partCount * 16,
    },
  ];
}
