import type { I420Frame } from '../../media/video/i420.js';

const COLUMNS = 48;
const ROWS = 27;

/**
 * Finds the first frame of a new shot by how much the picture's brightness changes from frame to frame on a coarse grid:
 * a cut changes it by much more than the motion before did.
 */
export class CutFinder {
  #before: Float32Array | undefined;
  #usual = 4;

  /** @returns whether this frame begins a shot. The first frame does not. */
  isCut(frame: I420Frame): boolean {
    const now = grid(frame);
    const before = this.#before;
    this.#before = now;
    if (!before) return false;
    let change = 0;
    for (let i = 0; i < now.length; i++) change += Math.abs(now[i] - before[i]);
    change /= now.length;
    const cut = change > 18 && change > 4 * this.#usual;
    if (!cut) this.#usual += (Math.max(1, change) - this.#usual) * 0.1;
    return cut;
  }
}

/** Mean brightness of a few pixels in each cell. */
function grid({ width, height, data }: I420Frame): Float32Array {
  const out = new Float32Array(COLUMNS * ROWS);
  for (let row = 0; row < ROWS; row++) {
    for (let column = 0; column < COLUMNS; column++) {
      let sum = 0;
      for (let i = 0; i < 9; i++) {
        const y = Math.floor(((row + ((i / 3) | 0) / 3 + 0.17) * height) / ROWS);
        const x = Math.floor(((column + (i % 3) / 3 + 0.17) * width) / COLUMNS);
        sum += data[y * width + x];
      }
      out[row * COLUMNS + column] = sum / 9;
    }
  }
  return out;
}
