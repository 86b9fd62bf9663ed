import { WfrError } from '../gpu/errors.js';

/** A picture cannot be read, drawn or written. */
export class MediaError extends WfrError {
  override name = 'MediaError';
}
