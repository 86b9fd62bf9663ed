/**
 * The words of a training step, one small buffer of 32-bit values. The host writes the first four before each
 * submit; the rest live on the GPU, so that a step that is skipped for an overflow needs no readback.
 */
export const WORD = {
  /** f32, written by the host. */
  learningRate: 0,
  /** u32, written by the host. */
  seed: 1,
  /** f32, written by the host: 0 on the first of several accumulated batches, else 1. */
  keep: 2,
  /** u32: updates made. */
  step: 4,
  /** f32: what the loss is multiplied by before its gradient is taken. */
  lossScale: 5,
  /** u32: updates since the scale last changed. */
  good: 6,
  /** u32: steps left out because a gradient was not finite. */
  skipped: 7,
  /** f32: norm of all gradients before clipping, unscaled. */
  norm: 8,
  /** f32: factor on the gradients of this step: clipping, unscaling. */
  factor: 9,
  /** u32: 1 when this step's gradients are finite. */
  finite: 10,
} as const;

export const STEP_WORDS = 16;
