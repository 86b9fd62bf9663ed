import { describe, expect, it } from 'vitest';
import { type Lifetime, planMemory } from '../../src/graph/memory.js';

/** Deterministic pseudo-random numbers in [0, 1) (mulberry32). */
function random(seed: number): () => number {
  let s = seed;
  return () => {
    s = (s + 0x6d2b79f5) | 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function overlaps(blocks: readonly Lifetime[], offsets: readonly number[]): string[] {
  const found: string[] = [];
  for (let i = 0; i < blocks.length; i++) {
    for (let j = i + 1; j < blocks.length; j++) {
      const together = blocks[i].first <= blocks[j].last && blocks[j].first <= blocks[i].last;
      const touching = offsets[i] < offsets[j] + blocks[j].bytes && offsets[j] < offsets[i] + blocks[i].bytes;
      if (together && touching) found.push(`${i} and ${j}`);
    }
  }
  return found;
}

describe('planMemory', () => {
  it('never lets blocks that live together overlap, whatever the lifetimes', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const r = random(seed);
      const blocks = Array.from({ length: 40 }, () => {
        const first = Math.floor(r() * 60);
        return { bytes: 16 + Math.floor(r() * 5000), first, last: first + Math.floor(r() * 12) };
      });
      const plan = planMemory(blocks, 256);
      expect(overlaps(blocks, plan.offsets)).toEqual([]);
      for (const [i, offset] of plan.offsets.entries()) {
        expect(offset % 256).toBe(0);
        expect(offset + blocks[i].bytes).toBeLessThanOrEqual(plan.bytes);
      }
      expect(plan.bytes).toBeGreaterThanOrEqual(plan.lowerBound);
    }
  });

  it('reaches the lower bound on a chain, where two blocks are alive at a time', () => {
    const blocks = Array.from({ length: 20 }, (_, i) => ({ bytes: 1024, first: i, last: i + 1 }));
    const plan = planMemory(blocks, 256);
    expect(plan.lowerBound).toBe(2048);
    expect(plan.bytes).toBe(2048);
  });

  it('needs nothing for nothing', () => {
    expect(planMemory([], 256)).toEqual({ offsets: [], bytes: 0, lowerBound: 0 });
  });
});
