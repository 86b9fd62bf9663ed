import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/gpu/kernel_call.js';
import type { DeviceTraits } from '../../src/gpu/traits.js';
import { fuse } from '../../src/graph/fuse.js';
import type { Graph } from '../../src/graph/graph.js';
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
  'rnet 1': () => rnet([1, 24, 24, 3]),
  'rnet 16': () => rnet([16, 24, 24, 3]),
  'rnet 64': () => rnet([64, 24, 24, 3]),
  'onet 1': () => onet([1, 48, 48, 3]),
  'onet 16': () => onet([16, 48, 48, 3]),
  'onet 32': () => onet([32, 48, 48, 3]),
};

const calls = (graph: Graph, traits: DeviceTraits, precision: FloatType) => {
  // Memory that exists already.
  const weight = () => ({ bytes: 16, range: { buffer: {} as GPUBuffer, offset: 0, size: 16 } });
  return lower(graph, {
    lowerings: LOWERINGS,
    traits,
    precision,
    fixedWeights: true,
    dtypeOf: () => precision,
    parameter: weight,
    rows: weight,
  }).calls;
};

describe('memory of the nets', () => {
  it.each(Object.entries(NETS))('%s: at most a fiftieth above what liveness demands', (_, build) => {
    for (const traits of [PROCESSOR, CARD]) {
      const { graph } = fuse(build(), { get: () => undefined }, traits);
      for (const precision of ['f32', 'f16'] as const) {
        const { plan } = placeInArena(calls(graph, traits, precision), 256);
        expect(plan.lowerBound).toBeGreaterThan(0);
        expect(plan.bytes).toBeLessThanOrEqual(1.02 * plan.lowerBound);
      }
    }
  });
});

describe('dispatches of MobileFaceNet', () => {
  it.each([
    ['a processor', PROCESSOR, 35, 3],
    // Its layers, and second passes of the ten whose sums are made in parts.
    ['a card', CARD, 50 + 10, undefined],
  ] as const)('%s', (_, traits, dispatches, pipelines) => {
    const { graph } = fuse(NETS['mobilefacenet 1'](), { get: () => undefined }, traits);
    const all = calls(graph, traits, 'f32');
    expect(all).toHaveLength(dispatches);
    // The first layer, the global filter, and one that does all others.
    if (pipelines) expect(new Set(all.map((c) => c.body)).size).toBe(pipelines);
  });
});
