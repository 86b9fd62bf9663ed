import { describe, expect, it } from 'vitest';
import type { Face } from '../../src/face/detector.js';
import { Facebank } from '../../src/face/facebank.js';
import { GpuPicture } from '../../src/face/gpu_picture.js';
import { FaceRecognizer, mainFace } from '../../src/face/recognizer.js';
import { openGpu } from '../../src/gpu/gpu.js';
import { sharedGpu } from '../check_op.js';
import { blobs, eagerMtcnn, memory, smallRecogniser } from './helpers.js';

async function withRecognizer<T>(work: (r: FaceRecognizer) => Promise<T>): Promise<T> {
  const gpu = await sharedGpu();
  const recognizer = FaceRecognizer.create(gpu, { detector: eagerMtcnn(), recogniser: smallRecogniser() });
  try {
    return await work(recognizer);
  } finally {
    await recognizer.destroy();
  }
}

const options = { minFace: 40 };

describe('recognising', () => {
  it('names the people of a bank and nobody without one', async () => {
    await withRecognizer(async (r) => {
      const faces = await r.recognize(blobs(120, 100), undefined, options);
      expect(faces.length).toBeGreaterThan(0);
      expect(faces.every((f) => f.status === 'unknown' && f.name === undefined)).toBe(true);
      const bank = new Facebank([{ name: 'Łucja', picture: 'a.png', embedding: faces[0].embedding }]);
      const [named] = await r.recognize(blobs(120, 100), bank, { ...options, threshold: 0.9 });
      expect(named.name).toBe('Łucja');
      expect(named.status).toBe('known');
      expect(named.similarity).toBeCloseTo(1, 5);
      const opposite = new Facebank([
        { name: 'Nemo', picture: 'b.png', embedding: faces[0].embedding.map((v) => -v) },
      ]);
      const [stranger] = await r.recognize(blobs(120, 100), opposite, options);
      expect(stranger.status).toBe('unknown');
    });
  });

  it('takes pictures without a face among others', async () => {
    await withRecognizer(async (r) => {
      const pictures = [blobs(120, 100), blobs(5, 5), blobs(1, 300), blobs(120, 100)];
      const found = await Promise.all(pictures.map((p) => r.recognize(p, new Facebank(), options)));
      expect(found.map((f) => f.length > 0)).toEqual([true, false, false, true]);
      expect(found[3]).toEqual(found[0]);
    });
  });

  it('leaves no buffers behind over a hundred calls', async () => {
    const gpu = await sharedGpu();
    await withRecognizer(async (r) => {
      const picture = blobs(60, 50);
      for (let i = 0; i < 2; i++) await r.recognize(picture, undefined, options);
      const warm = memory(gpu);
      for (let i = 0; i < 100; i++) await r.recognize(picture, undefined, options);
      expect(memory(gpu)).toEqual(warm);
    });
  });

  it('finds and recognises the same with no more than every device guarantees', async () => {
    const picture = blobs(120, 100);
    const want = await withRecognizer((r) => r.recognize(picture, undefined, options));
    const minimal = await openGpu({ minimal: true });
    const r = FaceRecognizer.create(minimal, { detector: eagerMtcnn(), recogniser: smallRecogniser() });
    const found = await r.recognize(picture, undefined, options);
    expect(found).toHaveLength(want.length);
    for (const [i, face] of found.entries()) {
      for (const side of ['x1', 'y1', 'x2', 'y2'] as const)
        expect(face.box[side]).toBeCloseTo(want[i].box[side], 2);
      for (const [k, v] of face.embedding.entries())
        expect(Math.abs(v - want[i].embedding[k])).toBeLessThan(1e-3);
    }
    await r.destroy();
    minimal.check();
    minimal.close();
  });

  it('leaves a picture that was uploaded by its caller to the caller', async () => {
    const gpu = await sharedGpu();
    await withRecognizer(async (r) => {
      const picture = blobs(80, 80);
      const uploaded = GpuPicture.upload(gpu, picture);
      const once = await r.recognize(uploaded, undefined, options);
      expect(await r.recognize(uploaded, undefined, options)).toEqual(once);
      expect(await r.recognize(picture, undefined, options)).toEqual(once);
      uploaded.destroy();
    });
  });
});

describe('the main face', () => {
  const at = (x1: number, y1: number, side: number): Face => ({
    box: { x1, y1, x2: x1 + side, y2: y1 + side },
    score: 1,
    landmarks: [],
  });

  it('is large and near the middle', () => {
    const middle = at(75, 75, 100);
    expect(mainFace([at(0, 0, 90), middle, at(110, 110, 30)], 250, 250)).toBe(middle);
    // A larger one at the border loses.
    expect(mainFace([at(0, 0, 110), middle], 250, 250)).toBe(middle);
    expect(mainFace([], 250, 250)).toBeUndefined();
  });
});
