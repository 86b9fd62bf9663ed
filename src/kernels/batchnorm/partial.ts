import type { Operand } from '../tensor.js';

/**
 * What is known of the values of a map chunk by chunk, before the chunks are joined (forward.ts): their mean and the sum of
 * squares about it. A kernel that writes a map can leave it in passing, which saves reading the map once more.
 */
export interface PartialStatistics<B> {
  /** [chunks · 2, C] f32. */
  partial: Operand<B>;
  /** Of a chunk k there are times · min(most, total − (k mod strips) · most) rows. */
  chunks: { strips: number; most: number; total: number; times: number };
}

/**
 * WGSL that begins a chunk with a value near its mean, so that a mean far from zero costs no precision.
 * @param k tells apart chunks that go on together.
 */
export const beginChunk = (value: string, k: number | string = '') => `  var about${k} = ${value};
  var total${k} = vec4<f32>(0.0);
  var squares${k} = vec4<f32>(0.0);`;

/** WGSL that takes a value in. */
export const intoChunk = (value: string, k: number | string = '') =>
  `{ let d = ${value} - about${k}; total${k} += d; squares${k} = fma(d, d, squares${k}); }`;

/**
 * WGSL that ends a chunk.
 * @param at WGSL of the chunk's place in `partial` and of the quads to its second row.
 * @param rows WGSL of how many values were taken in, f32.
 */
export const endChunk = (at: string, quads: string, rows: string, k: number | string = '') => `  {
    let mean = total${k} / ${rows};
    partial[${at}] = about${k} + mean;
    partial[${at} + ${quads}] = max(squares${k} - total${k} * mean, vec4<f32>(0.0));
  }`;
