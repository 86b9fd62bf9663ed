import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { type DetectOptions, type Face, Mtcnn } from '../../src/face/detector.js';
import { FaceError } from '../../src/face/errors.js';
import { GpuPicture } from '../../src/face/gpu_picture.js';
import { readPicture } from '../../src/media/decode.node.js';
import type { Picture } from '../../src/media/picture.js';
import { type LoadedWeights, loadWeights } from '../../src/weights/load.node.js';
import { sharedGpu } from '../check_op.js';
import { blobs, memory, randomMtcnn } from './helpers.js';
import { type ReferenceFace, referenceDetect } from './mtcnn_reference.js';

/** Same faces in the same order; coordinates to a hundredth of a pixel a hundred pixels of face. */
function expectSame(faces: readonly Face[], expected: readonly ReferenceFace[]): void {
  expect(faces).toHaveLength(expected.length);
  for (const [i, { box, score, landmarks }] of faces.entries()) {
    const want = expected[i];
    const tolerance = 1e-4 * Math.max(20, want.box[2] - want.box[0]);
    const got = [box.x1, box.y1, box.x2, box.y2, ...landmarks.flat()];
    for (const [k, v] of [...want.box, ...want.landmarks.flat()].entries())
      expect(Math.abs(got[k] - v), `face ${i}, number ${k}: ${got[k]} for ${v}`).toBeLessThan(tolerance);
    expect(Math.abs(score - want.score)).toBeLessThan(1e-4);
  }
}

async function withDetector<T>(
  weights: Pick<LoadedWeights, 'state'> & Partial<Pick<LoadedWeights, 'metadata'>>,
  work: (d: Mtcnn) => Promise<T>,
): Promise<T> {
  const detector = Mtcnn.create(await sharedGpu(), weights);
  try {
    return await work(detector);
  } finally {
    await detector.destroy();
  }
}

describe('the cascade with random weights', () => {
  // Thresholds at which each stage keeps some and drops some.
  const cases: [
    string,
    Picture,
    {
      minFace: number;
      thresholds: [number, number, number];
      factor?: number;
      secondLook?: boolean;
      voteBoxes?: boolean;
    },
  ][] = [
    ['a small picture', blobs(97, 83), { minFace: 20, thresholds: [0.5, 0.4, 0.3] }],
    [
      'points and scores from a second look',
      blobs(97, 83),
      { minFace: 20, thresholds: [0.5, 0.4, 0.3], secondLook: true },
    ],
    ['boxes by vote', blobs(97, 83), { minFace: 20, thresholds: [0.5, 0.4, 0.3], voteBoxes: true }],
    ['levels larger than the picture', blobs(41, 33), { minFace: 8, thresholds: [0.5, 0.3, 0.3] }],
    ['a level in tiles', blobs(1101, 38), { minFace: 12, thresholds: [0.6, 0.4, 0.3] }],
    [
      'more levels than are kept compiled',
      blobs(100, 104),
      { minFace: 12, thresholds: [0.6, 0.4, 0.3], factor: 0.97 },
    ],
  ];
  for (const [name, picture, options] of cases) {
    it(`agrees with the reference: ${name}`, async () => {
      const weights = randomMtcnn();
      const { minFace, thresholds, factor, ...how } = options;
      const expected = referenceDetect(picture, weights.state, minFace, thresholds, factor, how);
      expect(expected.length).toBeGreaterThan(0);
      if (Object.keys(how).length > 0)
        expect(expected).not.toEqual(referenceDetect(picture, weights.state, minFace, thresholds, factor));
      await withDetector(weights, async (d) => expectSame(await d.detect(picture, options), expected));
    });
  }

  it('gives the same faces whether calls overlap or not, in any order', async () => {
    const pictures = [blobs(60, 60, 1), blobs(80, 50, 2), blobs(45, 70, 3)];
    await withDetector(randomMtcnn(), async (d) => {
      const options = { thresholds: [0.5, 0.4, 0.3] as const };
      const alone: Face[][] = [];
      for (const p of pictures) alone.push(await d.detect(p, options));
      expect(alone.some((faces) => faces.length > 0)).toBe(true);
      expect(await Promise.all(pictures.map((p) => d.detect(p, options)))).toEqual(alone);
    });
  });

  it('finds nothing in a picture below the smallest face', async () => {
    await withDetector(randomMtcnn(), async (d) => {
      expect(await d.detect(blobs(11, 200))).toEqual([]);
      expect(await d.detect(blobs(1, 1), { minFace: 12 })).toEqual([]);
    });
  });

  it('refuses options that make no sense', async () => {
    await withDetector(randomMtcnn(), async (d) => {
      for (const options of [
        { minFace: 0 },
        { minFace: Number.NaN },
        { factor: 1 },
        { thresholds: [0, 2, 0] as const },
      ])
        await expect(d.detect(blobs(30, 30), options)).rejects.toThrow(FaceError);
    });
  });

  it("goes by the thresholds of the weights' metadata, and refuses what are none", async () => {
    const { state } = randomMtcnn();
    const picture = blobs(97, 83);
    const thresholds = [0.5, 0.4, 0.3] as const;
    const metadata = (config: Record<string, unknown>) => ({ state, metadata: { net: 'mtcnn', config } });
    const expected = await withDetector({ state }, (d) => d.detect(picture, { thresholds }));
    expect(expected.length).toBeGreaterThan(0);
    await withDetector(metadata({ thresholds }), async (d) => {
      expect(await d.detect(picture)).toEqual(expected);
      expect(await d.detect(picture, { thresholds: [0.5, 0.4, 1] })).toEqual([]);
    });
    const gpu = await sharedGpu();
    for (const bad of [0.5, [0.5, 0.5], [0.5, 'x', 0.5], [0.5, 2, 0.5]])
      expect(() => Mtcnn.create(gpu, metadata({ thresholds: bad }))).toThrow(/thresholds/);
  });

  it('refuses weights of another net', async () => {
    const gpu = await sharedGpu();
    expect(() => Mtcnn.create(gpu, { state: new Map() })).toThrow('not an MTCNN');
  });

  it('keeps no buffer over a hundred calls, nor over changing sizes beyond its cap', async () => {
    const gpu = await sharedGpu();
    const before = memory(gpu);
    await withDetector(randomMtcnn(), async (d) => {
      const options = { thresholds: [0.5, 0.4, 0.3] as const };
      const pictures = [blobs(40, 40), blobs(52, 31)];
      for (const p of pictures) await d.detect(p, options);
      const warm = memory(gpu);
      for (let i = 0; i < 100; i++) await d.detect(pictures[i % 2], options);
      expect(memory(gpu)).toEqual(warm);
      // More sizes than are kept, twice; nothing is found, so that only P-Net compiles anything.
      const rounds: number[] = [];
      for (let round = 0; round < 2; round++) {
        let most = 0;
        for (let i = 0; i < 60; i++) {
          await d.detect(blobs(20 + i, 16), { minFace: 12, thresholds: [1, 1, 1] });
          most = Math.max(most, gpu.stats.buffers);
        }
        rounds.push(most);
      }
      expect(rounds[0]).toBeGreaterThan(warm.buffers);
      expect(rounds[1]).toBeLessThanOrEqual(rounds[0]);
    });
    // Staging buffers and nothing else outlive the detector.
    expect(gpu.stats.buffers - before.buffers).toBeLessThanOrEqual(2);
  });
});

describe('a picture on the GPU', () => {
  it('is halved until it fits one binding, and faces come back in pixels of the file', async () => {
    const gpu = await sharedGpu();
    const weights = randomMtcnn();
    const big = blobs(120, 100);
    const small = GpuPicture.upload(limited(gpu, 120 * 100 * 4 - 1), big);
    expect([small.width, small.height, small.scale]).toEqual([60, 50, 2]);
    await withDetector(weights, async (d) => {
      const options = { minFace: 40, thresholds: [0.4, 0.3, 0.3] as const };
      const faces = await d.detect(small, options);
      expect(faces.length).toBeGreaterThan(0);
      const half = { width: 60, height: 50, data: halved(big) };
      const expected = referenceDetect(half, weights.state, 20, options.thresholds);
      expectSame(
        faces,
        expected.map((f) => ({
          ...f,
          box: f.box.map((v) => 2 * v),
          landmarks: f.landmarks.map((p) => p.map((v) => 2 * v)),
        })),
      );
    });
    small.destroy();
  });
});

/** The device, but with a smaller limit on bindings. */
function limited(gpu: Awaited<ReturnType<typeof sharedGpu>>, maxBindingBytes: number): typeof gpu {
  return Object.create(gpu, {
    traits: { value: { ...gpu.traits, maxBindingBytes } },
    createStorage: { value: gpu.createStorage.bind(gpu) },
    destroyBuffer: { value: gpu.destroyBuffer.bind(gpu) },
  });
}

function halved({ width, height, data }: Picture): Uint8Array {
  const out = new Uint8Array((width / 2) * (height / 2) * 4);
  for (let i = 0; i < out.length; i++) {
    const [c, p] = [i % 4, i >> 2];
    const at = (2 * Math.floor(p / (width / 2)) * width + 2 * (p % (width / 2))) * 4 + c;
    const sum = data[at] + data[at + 4] + data[at + 4 * width] + data[at + 4 * width + 4];
    out[i] = Math.floor((sum + 2) / 4);
  }
  return out;
}

const demo = path.join(
  path.dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')),
  'demo',
);

describe('weights that are found, on photos', () => {
  it('agrees with the reference', async (context) => {
    const weights = await loadWeights('detector').catch(() => undefined);
    if (!weights) return context.skip('no detector weights found (WFR_WEIGHTS)');
    const picture = await readPicture(path.join(demo, 'sample5.jpg'));
    const options = { minFace: 90 };
    const { thresholds, ...how } = (weights.metadata.config ?? {}) as DetectOptions;
    const expected = referenceDetect(picture, weights.state, options.minFace, thresholds, undefined, how);
    expect(expected.length).toBeGreaterThanOrEqual(4);
    await withDetector(weights, async (d) => expectSame(await d.detect(picture, options), expected));
  });
});
