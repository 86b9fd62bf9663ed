import type { OptimizerConfig } from './update.js';

export interface OptimizerState {
  weights: Float64Array;
  moments: Float64Array[];
  step: number;
}

/** One step in f64 by the definitions (PyTorch's SGD and AdamW). */
export function optimizerReference(
  s: OptimizerState,
  gradients: ArrayLike<number>,
  config: OptimizerConfig,
  rate: number,
): void {
  s.step++;
  const [m, v] = s.moments;
  for (let i = 0; i < s.weights.length; i++) {
    let g = gradients[i];
    if (config.kind === 'sgd') {
      g += config.weightDecay * s.weights[i];
      m[i] = config.momentum * m[i] + g;
      s.weights[i] -= rate * (config.nesterov ? g + config.momentum * m[i] : m[i]);
    } else {
      s.weights[i] -= rate * config.weightDecay * s.weights[i];
      m[i] = config.beta1 * m[i] + (1 - config.beta1) * g;
      v[i] = config.beta2 * v[i] + (1 - config.beta2) * g * g;
      const first = m[i] / (1 - config.beta1 ** s.step);
      const second = v[i] / (1 - config.beta2 ** s.step);
      s.weights[i] -= (rate * first) / (Math.sqrt(second) + config.eps);
    }
  }
}
