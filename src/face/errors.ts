import { WfrError } from '../gpu/errors.js';

/** Something about faces or a facebank that the caller can mend. */
export class FaceError extends WfrError {
  override name = 'FaceError';
}
