/** An error whose message is meant for the person who caused it: what was wrong, where, and what to do. */
export class WfrError extends Error {
  override name = 'WfrError';
}

/** The GPU cannot be used: no adapter, a failed shader, a validation error or a lost device. */
export class GpuError extends WfrError {
  override name = 'GpuError';
}
