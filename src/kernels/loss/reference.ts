import { softmaxReference } from '../softmax/reference.js';

type Values = ArrayLike<number>;

/** Mean cross-entropy of softmax over rows of `channels` logits, and its gradient; labels from `channels` on are left out. */
export function crossEntropyReference(x: Values, labels: Values, channels: number) {
  const p = softmaxReference(x, channels);
  const known = Array.from(labels).filter((l) => l < channels).length;
  const dx = new Float64Array(x.length);
  let loss = 0;
  for (let r = 0; r < labels.length; r++) {
    if (labels[r] >= channels) continue;
    loss -= Math.log(p[r * channels + labels[r]]) / known;
    for (let c = 0; c < channels; c++)
      dx[r * channels + c] = (p[r * channels + c] - (c === labels[r] ? 1 : 0)) / known;
  }
  return { loss, dx };
}

/** Mean smooth L1 of x and a target, and its gradient by x. */
export function smoothL1Reference(x: Values, target: Values, beta: number) {
  const dx = new Float64Array(x.length);
  let loss = 0;
  for (let i = 0; i < x.length; i++) {
    const d = x[i] - target[i];
    const small = Math.abs(d) < beta;
    loss += (small ? d ** 2 / (2 * beta) : Math.abs(d) - beta / 2) / x.length;
    dx[i] = (small ? d / beta : Math.sign(d)) / x.length;
  }
  return { loss, dx };
}
