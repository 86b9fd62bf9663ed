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

/** A plan that is near enough to the bound. */
const NEAR = 1.01;
/** Blocks placed in all tries from one order: a net's few dozen are placed forty times, a training step's thousand three times. */
const PLACED = 2000;

/**
 * Places blocks in one arena so that blocks alive at the same time never overlap: largest first, each in the
 * tightest gap between those already placed that are alive with it (Pisarchyk & Lee 2020, "greedy by size"). Where that
 * leaves holes, the same by size times lifetime and in order of time; and of each, with the block that ends last placed
 * before all others, again and again. The first that is near the bound, else the best of all.
 */
export function planMemory(blocks: readonly Lifetime[], alignment: number): MemoryPlan {
  const aligned = blocks.map((b) => ({ ...b, bytes: Math.ceil(b.bytes / alignment) * alignment }));
  const lowerBound = largestAlive(aligned);
  const calls = (b: Lifetime) => b.last - b.first + 1;
  let best: { offsets: number[]; bytes: number } | undefined;
  for (const before of [
    (a: Lifetime, b: Lifetime) => b.bytes - a.bytes || a.first - b.first,
    (a: Lifetime, b: Lifetime) => b.bytes * calls(b) - a.bytes * calls(a) || a.first - b.first,
    (a: Lifetime, b: Lifetime) => a.first - b.first || b.bytes - a.bytes,
  ]) {
    let order = aligned.map((_, i) => i).sort((a, b) => before(aligned[a], aligned[b]));
    for (let placed = 0; placed <= PLACED; placed += blocks.length) {
      const plan = place(aligned, order);
      if (!best || plan.bytes < best.bytes) best = plan;
      if (best.bytes <= NEAR * lowerBound) return { ...best, lowerBound };
      const top = order.find((i) => plan.offsets[i] + aligned[i].bytes === plan.bytes)!;
      order = [top, ...order.filter((i) => i !== top)];
    }
  }
  return { ...best!, lowerBound };
}

/** The largest sum of blocks alive at once. */
function largestAlive(blocks: readonly Lifetime[]): number {
  const calls = blocks.reduce((m, b) => Math.max(m, b.last + 1), 0);
  let most = 0;
  for (let c = 0; c < calls; c++) {
    let alive = 0;
    for (const b of blocks) if (b.first <= c && c <= b.last) alive += b.bytes;
    most = Math.max(most, alive);
  }
  return most;
}

/** Each block in turn in the tightest gap between those placed before that are alive with it, else behind them. */
function place(blocks: readonly Lifetime[], order: readonly number[]): { offsets: number[]; bytes: number } {
  const offsets = new Array<number>(blocks.length).fill(0);
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
      if (gap >= block.bytes && gap < bestGap) {
        best = end;
        bestGap = gap;
      }
      end = Math.max(end, offsets[j] + blocks[j].bytes);
    }
    offsets[i] = best >= 0 ? best : end;
    placed.push(i);
    bytes = Math.max(bytes, offsets[i] + block.bytes);
  }
  return { offsets, bytes };
}
