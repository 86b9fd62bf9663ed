import { WfrError } from '../gpu/errors.js';

/** A weights file is malformed, not what it claims to be, or holds something that is refused. */
export class WeightsError extends WfrError {
  override name = 'WeightsError';
}
