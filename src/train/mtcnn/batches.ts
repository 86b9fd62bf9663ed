import { TASK } from '../../kernels/mtcnn_loss/tasks.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import { Random } from '../random.js';

/** Samples of one net, as pack.node.ts lays them out. */
export interface Samples {
  size: number;
  count: number;
  /** 14 a sample: box, points. */
  targets: Float32Array;
  tasks: Uint8Array;
  pixels: Uint8Array;
}

/** Share of a batch that comes from each kind, in the order negatives, positives, all others. */
export const SHARES: Record<MtcnnNet, readonly number[]> = {
  pnet: [3, 1, 1],
  rnet: [2, 2, 1],
  onet: [3, 4, 1],
};

export interface SampleBatch {
  x: Float32Array;
  tasks: Uint32Array;
  boxTarget: Float32Array;
  pointsTarget: Float32Array;
}

/**
 * Batches with a fixed share of each kind, whatever the numbers of samples. A step's batch depends on the seed and the
 * step alone: each kind is gone through in an order that is new each time round.
 */
export class Batches {
  readonly #kinds: {
    indices: Uint32Array;
    take: number;
    order?: { round: number; permutation: Uint32Array };
  }[] = [];

  constructor(
    readonly samples: Samples,
    net: MtcnnNet,
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
    const { size: side, targets, tasks, pixels } = this.samples;
    const area = side * side * 3;
    const batch: SampleBatch = {
      x: new Float32Array(this.size * area),
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
        batch.tasks[row] = tasks[i];
        batch.boxTarget.set(targets.subarray(i * 14, i * 14 + 4), row * 4);
        batch.pointsTarget.set(targets.subarray(i * 14 + 4, i * 14 + 14), row * 10);
        for (let p = 0, from = i * area, to = row * area; p < area; p++)
          batch.x[to + p] = (pixels[from + p] - 127.5) / 128;
      }
    }
    return batch;
  }
}
