/**
 * The assignment of rows to columns with the least total cost (Kuhn 1955; shortest augmenting paths with potentials,
 * O(n²m)). Pairs of infinite cost are never made.
 *
 * @param cost rows × columns
 * @returns for every row its column, or −1
 */
export function assign(cost: readonly (readonly number[])[]): number[] {
  const n = cost.length;
  const m = n > 0 ? cost[0].length : 0;
  const result = new Array<number>(n).fill(-1);
  if (m === 0) return result;
  const finite = cost.flat().filter(Number.isFinite);
  // Leaving a row alone must cost more than any pair of it, so that pairs are made where they may be.
  const alone = 2 * (finite.reduce((a, b) => Math.max(a, Math.abs(b)), 1) * (n + m) + 1);
  // n more columns stand for "alone".
  const width = m + n;
  const at = (i: number, j: number) =>
    j < m ? (Number.isFinite(cost[i][j]) ? cost[i][j] : 4 * alone) : alone;
  // Indices from 1; column 0 holds the row being placed.
  const u = new Float64Array(n + 1);
  const v = new Float64Array(width + 1);
  const rowOf = new Int32Array(width + 1);
  const way = new Int32Array(width + 1);
  for (let i = 1; i <= n; i++) {
    rowOf[0] = i;
    let column = 0;
    const least = new Float64Array(width + 1).fill(Number.POSITIVE_INFINITY);
    const used = new Uint8Array(width + 1);
    do {
      used[column] = 1;
      const row = rowOf[column];
      let delta = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let j = 1; j <= width; j++) {
        if (used[j]) continue;
        const reduced = at(row - 1, j - 1) - u[row] - v[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          way[j] = column;
        }
        if (least[j] < delta) {
          delta = least[j];
          next = j;
        }
      }
      for (let j = 0; j <= width; j++) {
        if (used[j]) {
          u[rowOf[j]] += delta;
          v[j] -= delta;
        } else least[j] -= delta;
      }
      column = next;
    } while (rowOf[column] !== 0);
    while (column !== 0) {
      rowOf[column] = rowOf[way[column]];
      column = way[column];
    }
  }
  for (let j = 1; j <= m; j++) if (rowOf[j] > 0) result[rowOf[j] - 1] = j - 1;
  return result.map((j, i) => (j >= 0 && Number.isFinite(cost[i][j]) ? j : -1));
}
