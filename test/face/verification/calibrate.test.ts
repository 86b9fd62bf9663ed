import { describe, expect, it } from 'vitest';
import { calibrate, requireEnoughPairs, withThreshold } from '../../../src/face/verification/calibrate.js';
import { readSafetensors, writeSafetensors } from '../../../src/weights/formats/safetensors.js';
import { metadataFromStrings } from '../../../src/weights/metadata.js';

// 100 different pairs at 1.00, 1.01, … and 10 same pairs at 0.1, 0.2, …, 1.0 (similarity 1 − d/2).
const distances = [
  ...Array.from({ length: 100 }, (_, i) => 1 + i / 100),
  ...Array.from({ length: 10 }, (_, i) => (i + 1) / 10),
];
const same = distances.map((_, i) => i >= 100);

describe('calibrate', () => {
  it('takes the middle between the last pair accepted and the next', () => {
    // 10 % of 100: the different pair at 1.09 is accepted, the one at 1.10 is not.
    expect(calibrate({ distances, same }, 0.1, 'a test')).toEqual({
      similarity: Number((1 - 1.095 / 2).toFixed(5)),
      far: 0.1,
      tar: 1,
      basis: 'a test',
      curve: [
        { similarity: 0.4525, far: 0.1, tar: 1 },
        { similarity: 0.4875, far: 0.03, tar: 1 },
        { similarity: 0.4975, far: 0.01, tar: 1 },
      ],
    });
  });

  it('does not accept ties with a pair too many', () => {
    // Ten of thirty different pairs may pass, but the nearest eleven are equally near.
    const distances = [0.2, 0.9, ...new Array(11).fill(0.5), ...new Array(19).fill(1.2)];
    const tied = { distances, same: distances.map((_, i) => i < 2) };
    expect(calibrate(tied, 0.34, '')).toMatchObject({ far: 0, tar: 0.5, similarity: 1 - 0.35 / 2 });
  });

  it('refuses rates at which the pairs give fewer than ten false accepts', () => {
    expect(() => calibrate({ distances, same }, 0.01, '')).toThrow(
      /100 pairs of different people are too few.*it takes 1000 .*least that these can is 0\.1\b/,
    );
    expect(() => requireEnoughPairs(999, 0.01)).toThrow(/it takes 1000 .*is 0\.0101\b/);
    expect(() => requireEnoughPairs(1000, 0.01)).not.toThrow();
    expect(() => requireEnoughPairs(3000, 0.001)).toThrow(/it takes 10000 .*is 0\.0034\b/);
    expect(() => requireEnoughPairs(3000, 0.0034)).not.toThrow();
    expect(() => calibrate({ distances, same }, 1.5, '')).toThrow(/between 0 and 1/);
  });
});

describe('withThreshold', () => {
  const state = new Map([['a.weight', { shape: [3], data: Float32Array.of(1, 2.5, -3) }]]);
  const threshold = { similarity: 0.31, basis: 'FAR 0.01 on 6,000 pairs – test', far: 0.01, tar: 0.9 };

  for (const type of ['f32', 'f16'] as const) {
    it(`changes the metadata and no tensor (${type})`, () => {
      const file = writeSafetensors(state, { format: 'pt', net: 'mobilefacenet', title: 'T' }, type);
      const changed = withThreshold(file, threshold);
      const { state: after, metadata } = readSafetensors(changed);
      expect([...after.get('a.weight')!.data]).toEqual([1, 2.5, -3]);
      expect(metadataFromStrings(metadata)).toEqual({ net: 'mobilefacenet', title: 'T', threshold });
      const body = type === 'f32' ? 12 : 6;
      expect(changed.subarray(-body)).toEqual(file.subarray(-body));
      // Again: replaced, not added.
      const again = readSafetensors(withThreshold(changed, { similarity: 0.5, basis: 'b' })).metadata;
      expect(JSON.parse(again.threshold)).toEqual({ similarity: 0.5, basis: 'b' });
    });
  }

  it('refuses other files', () => {
    expect(() => withThreshold(new Uint8Array(100), threshold)).toThrow(/wfr weights convert/);
    expect(() => withThreshold(writeSafetensors(state, {}), threshold)).toThrow(/does not say which net/);
  });
});
