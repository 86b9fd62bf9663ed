/** A block of memory needed from call `first` to call `last`, inclusive. */
export interface Lifetime {
  bytes: number;
  first: number;
  last: number;
}

export interface MemoryPlan {
  /** Byte offset of each block, in the order given. */
  offsets: number[];
  /** Size of the arena. */
  bytes: number;
  /** The largest sum of blocks alive at once: no plan can be smaller. */
  lowerBound: number;
}

/**
 * Places blocks in one arena so that blocks alive at the same time never overlap: largest first, each in the
 * tightest gap between those already placed that are alive with it (Pisarchyk & Lee 2020, "greedy by size").
 */
export function planMemory(blocks: readonly Lifetime[], alignment: number): MemoryPlan {
  const align = (n: number) => Math.ceil(n / alignment) * alignment;
  const offsets = new Array<number>(blocks.length).fill(0);
  const order = blocks
    .map((_, i) => i)
    .sort((a, b) => blocks[b].bytes - blocks[a].bytes || blocks[a].first - blocks[b].first);
  const placed: number[] = [];
  let bytes = 0;
  for (const i of order) {
    const block = blocks[i];
    const rivals = placed
      .filter((j) => blocks[j].first <= block.last && block.first <= blocks[j].last)
      .sort((a, b) => offsets[a] - offsets[b]);
    let best = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    let end = 0;
    for (const j of rivals) {
      const gap = offsets[j] - end;
      if (gap >= align(block.bytes) && gap < bestGap) {
        best = end;
        bestGap = gap;
      }
      end = Math.max(end, offsets[j] + align(blocks[j].bytes));
    }
    offsets[i] = best >= 0 ? best : end;
    placed.push(i);
    bytes = Math.max(bytes, offsets[i] + align(block.bytes));
  }
  const calls = blocks.reduce((m, b) => Math.max(m, b.last + 1), 0);
  let lowerBound = 0;
  for (let c = 0; c < calls; c++) {
    let alive = 0;
    for (const b of blocks) if (b.first <= c && c <= b.last) alive += align(b.bytes);
    lowerBound = Math.max(lowerBound, alive);
  }
  return { offsets, bytes, lowerBound };
}
