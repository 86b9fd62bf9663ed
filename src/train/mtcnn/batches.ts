import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import { Random } from '../random.js';
import { AS_IT_IS, IS_VARIED, type SampleBatch, type Samples, takeSample, variationOf } from './vary.js';

/** Share of a batch that comes from each kind, in the order negatives, positives, all others. */
export const SHARES: Record<MtcnnNet, readonly number[]> = {
  pnet: [3, 1, 1],
  rnet: [2, 2, 1],
  onet: [3, 3, 2],
};

/**
 * Batches with a fixed share of each kind, whatever the numbers of samples. A step's batch depends on the seed and the
 * step alone: each kind is gone through in an order that is new each time round, and R- and O-Net, which see the same few
 * hard windows often, see them varied each time (vary.ts).
 */
export class Batches {
  readonly #kinds: {
    indices: Uint32Array;
    take: number;
    order?: { round: number; permutation: Uint32Array };
  }[] = [];

  constructor(
    readonly samples: Samples,
    readonly net: MtcnnNet,
    readonly size: number,
    readonly seed: number,
  ) {
    const groups: number[][] = [[], [], []];
    for (let i = 0; i < samples.count; i++) {
      const t = samples.tasks[i];
      groups[t & TASK.face ? 1 : t & TASK.classify ? 0 : 2].push(i);
    }
    const present = groups
      .map((g, k) => ({ indices: Uint32Array.from(g), share: SHARES[net][k] }))
      .filter((g) => g.indices.length > 0);
    const total = present.reduce((sum, g) => sum + g.share, 0);
    let left = size;
    present.forEach(({ indices, share }, k) => {
      const take = k === present.length - 1 ? left : Math.round((size * share) / total);
      left -= take;
      this.#kinds.push({ indices, take });
    });
  }

  at(step: number): SampleBatch {
    const side = this.samples.size;
    const random = Random.of(this.seed, 'variations', step);
    const batch: SampleBatch = {
      x: new Float32Array(this.size * side * side * 3),
      tasks: new Uint32Array(this.size),
      boxTarget: new Float32Array(this.size * 4),
      pointsTarget: new Float32Array(this.size * 10),
    };
    let row = 0;
    for (const [k, kind] of this.#kinds.entries()) {
      for (let j = 0; j < kind.take; j++, row++) {
        const place = step * kind.take + j;
        const n = kind.indices.length;
        const round = Math.floor(place / n);
        if (kind.order?.round !== round)
          kind.order = { round, permutation: Random.of(this.seed, 'samples', k, round).permutation(n) };
        const i = kind.indices[kind.order.permutation[place % n]];
        const variation = IS_VARIED[this.net] ? variationOf(random, side) : AS_IT_IS;
        takeSample(this.samples, i, variation, batch, row);
      }
    }
    return batch;
  }
}
