/**
 * The k rows of a bank [M, D] most like each query [Q, D] by dot product (cosine, for unit vectors). Exact. Two
 * passes: each invocation of the first takes one query and CHUNK rows and keeps its best k in order; the second
 * merges a query's chunks. Ties go to the lower row.
 *
 * Results: `scores` f32 and `rows` u32, both [Q, k]; where the bank has fewer than k rows the rest is −∞ and
 * 0xffffffff.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { ceilDiv, channelsOf, eachItem, grid, type Operand, quads, read, rowsOf } from '../tensor.js';

const SIZE = 64;
const CHUNK = 256;

export const topKChunks = (rows: number): number => ceilDiv(rows, CHUNK);

/** Keeps `best` (k entries, best first) sorted while (score, row) pairs come in by rising row. */
const insert = (k: number) => `
var<private> best: array<f32, ${k}>;
var<private> best_row: array<u32, ${k}>;
fn clear() { for (var j = 0u; j < ${k}u; j++) { best[j] = -3.4028234e38; best_row[j] = 0xffffffffu; } }
fn insert(score: f32, row: u32) {
  if (row == 0xffffffffu || (best_row[${k - 1}] != 0xffffffffu && score <= best[${k - 1}])) { return; }
  var j = ${k - 1}u;
  while (j > 0u && (best_row[j - 1u] == 0xffffffffu || score > best[j - 1u])) {
    best[j] = best[j - 1u];
    best_row[j] = best_row[j - 1u];
    j--;
  }
  best[j] = score;
  best_row[j] = row;
}`;

/** @param partial scratch of Q × topKChunks(M) × k entries, as two arrays like the results. k ≤ 16. */
export function cosineTopK<B>(
  queries: Operand<B>,
  bank: Operand<B>,
  k: number,
  partial: { scores: B; rows: B },
  result: { scores: B; rows: B },
): KernelCall<B>[] {
  const q = rowsOf(queries.shape);
  const rows = rowsOf(bank.shape);
  const chunks = topKChunks(rows);
  const out = (name: string, ref: B, element: string, write: boolean) => ({ name, ref, element, write });
  return [
    {
      label: 'topk.chunks',
      uniforms: {
        count: u32(q * chunks),
        rows: u32(rows),
        chunks: u32(chunks),
        depth: u32(quads(channelsOf(bank.shape))),
      },
      buffers: [
        read('queries', queries),
        read('bank', bank),
        out('scores', partial.scores, 'f32', true),
        out('places', partial.rows, 'u32', true),
      ],
      body: `${insert(k)}
${eachItem(SIZE)}
  let query = i / params.chunks * params.depth;
  let first = i % params.chunks * ${CHUNK}u;
  clear();
  for (var row = first; row < min(first + ${CHUNK}u, params.rows); row++) {
    var sum = 0.0;
    for (var d = 0u; d < params.depth; d++) { sum += dot(load_queries(query + d), load_bank(row * params.depth + d)); }
    insert(sum, row);
  }
  for (var j = 0u; j < ${k}u; j++) { scores[i * ${k}u + j] = best[j]; places[i * ${k}u + j] = best_row[j]; }
}`,
      workgroups: grid(q * chunks, SIZE),
      flops: 2 * q * rows * channelsOf(bank.shape),
      bytes: rows * quads(channelsOf(bank.shape)) * 16,
    },
    {
      label: 'topk.merge',
      uniforms: { count: u32(q), entries: u32(chunks * k) },
      buffers: [
        out('partial', partial.scores, 'f32', false),
        out('partial_rows', partial.rows, 'u32', false),
        out('scores', result.scores, 'f32', true),
        out('places', result.rows, 'u32', true),
      ],
      body: `${insert(k)}
${eachItem(SIZE)}
  clear();
  for (var e = 0u; e < params.entries; e++) { insert(partial[i * params.entries + e], partial_rows[i * params.entries + e]); }
  for (var j = 0u; j < ${k}u; j++) { scores[i * ${k}u + j] = best[j]; places[i * ${k}u + j] = best_row[j]; }
}`,
      workgroups: grid(q, SIZE),
      flops: 0,
      bytes: q * chunks * k * 8,
    },
  ];
}
