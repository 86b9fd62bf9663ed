/**
 * Optimiser steps over flat f32 buffers that hold all parameters of a group end to end, one dispatch a group
 * (more where a buffer passes the binding limit). g is the gradient times the step's factor (clipping, loss scale).
 *
 *   SGD    g += λw;  v = μv + g;  w −= η·(nesterov ? g + μv : v)                      (as PyTorch's SGD)
 *   AdamW  w −= ηλw;  m = β₁m + (1−β₁)g;  v = β₂v + (1−β₂)g²;
 *          w −= η·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)                                    (Loshchilov & Hutter 2019)
 *   EMA    e = ρₜe + (1−ρₜ)w,  ρₜ = min(ρ, (1 + t)/(10 + t)): the average of a short run holds little of the weights
 *          that it began with (as TensorFlow's ExponentialMovingAverage with num_updates)
 *
 * A step whose gradients are not finite changes nothing. Padding has gradient and weight zero and stays zero.
 */
import { f32, type KernelCall, type Uniform, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid } from '../tensor.js';
import { WORD } from './step_words.js';

export type OptimizerConfig =
  | { kind: 'sgd'; momentum: number; nesterov?: boolean; weightDecay: number }
  | { kind: 'adamw'; beta1: number; beta2: number; eps: number; weightDecay: number };

/** How many numbers the optimiser keeps for each weight. */
export const momentsOf = (o: OptimizerConfig): number => (o.kind === 'adamw' ? 2 : o.momentum > 0 ? 1 : 0);

export interface Update<B> {
  /** Elements, a multiple of 4. */
  length: number;
  weights: B;
  gradients: B;
  /** SGD: velocity (absent without momentum). AdamW: first and second moments. */
  moments: readonly B[];
  ema?: B;
  step: B;
}

const SIZE = 64;

/**
 * 1 − eʸ for y ≤ 0. By the series where the difference would cancel: cards' exp is off by some 2⁻²², which in
 * 1 − 0.999 is a part in four thousand.
 */
const MISSING = `
fn missing(y: f32) -> f32 {
  if (y < -0.5) { return 1.0 - exp(y); }
  return -y * (1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0 * (1.0 + y / 6.0 * (1.0 + y / 7.0))))));
}
`;

export function optimizerUpdate<B>(
  c: Update<B>,
  config: OptimizerConfig,
  decay: boolean,
  emaDecay = 0,
): KernelCall<B>[] {
  const uniforms: Record<string, Uniform> = {
    count: u32(c.length / 4),
    decay: f32(decay ? config.weightDecay : 0),
    ema: f32(emaDecay),
  };
  const vector = (name: string, ref: B) => ({ name, ref, element: 'vec4<f32>', write: true });
  let rule: string;
  let functions = '';
  if (config.kind === 'sgd') {
    uniforms.momentum = f32(config.momentum);
    rule = `  g = fma(w, vec4<f32>(params.decay), g);
${
  c.moments.length > 0
    ? `  let v = fma(m0[i], vec4<f32>(params.momentum), g);
  m0[i] = v;
  w -= rate * ${config.nesterov ? 'fma(v, vec4<f32>(params.momentum), g)' : 'v'};`
    : '  w -= rate * g;'
}`;
  } else {
    uniforms.beta1 = f32(config.beta1);
    uniforms.beta2 = f32(config.beta2);
    uniforms.eps = f32(config.eps);
    // log(β) in f64: pow(β, t) in f32 is off by t times its rounding.
    uniforms.log_beta1 = f32(Math.log(config.beta1));
    uniforms.log_beta2 = f32(Math.log(config.beta2));
    functions = MISSING;
    rule = `  w -= rate * params.decay * w;
  let m = m0[i] + (1.0 - params.beta1) * (g - m0[i]);
  let v = m1[i] + (1.0 - params.beta2) * (g * g - m1[i]);
  m0[i] = m;
  m1[i] = v;
  let first = missing(params.log_beta1 * t);
  let second = missing(params.log_beta2 * t);
  w -= rate / first * m / (sqrt(v / second) + params.eps);`;
  }
  return [
    {
      label: `optimizer.${config.kind}`,
      uniforms,
      buffers: [
        vector('weights', c.weights),
        { ...vector('gradients', c.gradients), write: false },
        ...c.moments.map((ref, k) => vector(`m${k}`, ref)),
        ...(c.ema !== undefined ? [vector('average', c.ema)] : []),
        { name: 'step', ref: c.step, element: 'u32', write: false },
      ],
      body: `${functions}${eachItem(SIZE)}
  if (step[${WORD.finite}] == 0u) { return; }
  let rate = bitcast<f32>(step[${WORD.learningRate}]);
  var w = weights[i];
  let t = f32(step[${WORD.step}]);
  var g = gradients[i] * bitcast<f32>(step[${WORD.factor}]);
${rule}
  weights[i] = w;
  ${c.ema !== undefined ? 'average[i] = fma(average[i] - w, vec4<f32>(min(params.ema, (1.0 + t) / (10.0 + t))), w);' : ''}
}`,
      workgroups: grid(c.length / 4, SIZE),
      flops: c.length * (config.kind === 'sgd' ? 6 : 16),
      bytes: c.length * 4 * (3 + 2 * c.moments.length + (c.ema !== undefined ? 2 : 0)),
    },
  ];
}

/** Running averages: w += momentum·(batch statistic − w), over the flat range of all of them. */
export function runningUpdate<B>(
  c: { length: number; weights: B; statistics: B; step: B },
  momentum: number,
  /** Leave them alone on a step that is skipped. */
  gated: boolean,
): KernelCall<B>[] {
  return [
    {
      label: 'batchNorm.running.update',
      uniforms: { count: u32(c.length / 4), momentum: f32(momentum) },
      buffers: [
        { name: 'weights', ref: c.weights, element: 'vec4<f32>', write: true },
        { name: 'statistics', ref: c.statistics, element: 'vec4<f32>', write: false },
        { name: 'step', ref: c.step, element: 'u32', write: false },
      ],
      body: `${eachItem(SIZE)}
  if (${gated ? `step[${WORD.finite}] == 0u` : 'false'}) { return; }
  let w = weights[i];
  weights[i] = fma(statistics[i] - w, vec4<f32>(params.momentum), w);
}`,
      workgroups: grid(c.length / 4, SIZE),
      flops: c.length * 2,
      bytes: c.length * 12,
    },
  ];
}

/** sum = keep·sum + share·gradient, for batches whose gradients are averaged before an update. */
export function accumulateGradients<B>(
  c: { length: number; sum: B; gradients: B; step: B },
  share: number,
): KernelCall<B>[] {
  return [
    {
      label: 'optimizer.accumulate',
      uniforms: { count: u32(c.length / 4), share: f32(share) },
      buffers: [
        { name: 'sum', ref: c.sum, element: 'vec4<f32>', write: true },
        { name: 'gradients', ref: c.gradients, element: 'vec4<f32>', write: false },
        { name: 'step', ref: c.step, element: 'u32', write: false },
      ],
      // Not keep·sum: what an overflow left there must not come back as 0·∞.
      body: `${eachItem(SIZE)}
  let before = select(vec4<f32>(0.0), sum[i], bitcast<f32>(step[${WORD.keep}]) > 0.0);
  sum[i] = fma(gradients[i], vec4<f32>(params.share), before);
}`,
      workgroups: grid(c.length / 4, SIZE),
      flops: c.length * 2,
      bytes: c.length * 12,
    },
  ];
}
