import { describe, expect, it } from 'vitest';
import type { DeviceTraits } from '../../src/gpu/traits.js';
import { fuse } from '../../src/graph/fuse.js';
import { LOWERINGS } from '../../src/graph/lower.js';
import { lower, placeInArena } from '../../src/graph/slots.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { mobileFaceNet } from '../../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../../src/nets/mtcnn.js';

const PROCESSOR: DeviceTraits = {
  kind: 'cpu',
  vendor: 'mesa',
  subgroups: true,
  subgroupSize: 8,
  shaderF16: true,
  maxInvocations: 1024,
  maxWorkgroupBytes: 32768,
  maxBindingBytes: 2 ** 27,
  maxStorageBuffers: 16,
};
const CARD: DeviceTraits = { ...PROCESSOR, kind: 'gpu', vendor: 'some', subgroups: false, subgroupSize: 0 };

const NETS = {
  'mobilefacenet 1': () => mobileFaceNet([1, 112, 112, 3]),
  'mobilefacenet 16': () => mobileFaceNet([16, 112, 112, 3]),
  'iresnet50 1': () => iresnet([1, 112, 112, 3], { depth: 50 }),
  'iresnet50 16': () => iresnet([16, 112, 112, 3], { depth: 50 }),
  'pnet 640×480': () => pnet([1, 480, 640, 3]),
  'rnet 64': () => rnet([64, 24, 24, 3]),
  'onet 32': () => onet([32, 48, 48, 3]),
};

describe('memory of the nets', () => {
  it.each(Object.entries(NETS))('%s: at most a tenth above what liveness demands', (_, build) => {
    const { graph } = fuse(build(), { get: () => undefined });
    for (const traits of [PROCESSOR, CARD]) {
      for (const precision of ['f32', 'f16'] as const) {
        const { calls } = lower(graph, {
          lowerings: LOWERINGS,
          traits,
          precision,
          fixedWeights: true,
          dtypeOf: () => precision,
          // A weight: memory that exists already.
          parameter: () => ({ bytes: 16, range: { buffer: {} as GPUBuffer, offset: 0, size: 16 } }),
        });
        const { plan } = placeInArena(calls, 256);
        expect(plan.lowerBound).toBeGreaterThan(0);
        expect(plan.bytes).toBeLessThanOrEqual(1.1 * plan.lowerBound);
      }
    }
  });
});
