import { describe, expect, it } from 'vitest';
import { invert, type Points, similarity, TEMPLATE_112, templateFor } from '../../src/face/align.js';
import { Embedder, type EmbedderOptions } from '../../src/face/embedder.js';
import { FaceError } from '../../src/face/errors.js';
import { Model } from '../../src/graph/model.js';
import type { Picture } from '../../src/media/picture.js';
import { recogniserOf } from '../../src/nets/registry.js';
import type { Weights } from '../../src/weights/convert.js';
import { sharedGpu } from '../check_op.js';
import { blobs, memory, randomMtcnn, randomRecogniser, smallRecogniser } from './helpers.js';

async function withEmbedder<T>(
  weights: Weights,
  options: EmbedderOptions,
  work: (e: Embedder) => Promise<T>,
) {
  const embedder = Embedder.create(await sharedGpu(), weights, options);
  try {
    return await work(embedder);
  } finally {
    await embedder.destroy();
  }
}

/** Bilinear, black outside, in f64; the net's input in its own order of channels. */
function warp(picture: Picture, points: Points, weights: Weights, mirror: boolean): Float32Array {
  const { height, width } = weights.metadata.input!;
  const { mean, scale, order } = weights.metadata.preprocessing!;
  const [a, b, c, d, e, f] = invert(similarity(points, templateFor(height, width)));
  const channels = order === 'gray' ? 1 : 3;
  const out = new Float32Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    for (let column = 0; column < width; column++) {
      const x = mirror ? width - 1 - column : column;
      const [u, v] = [a * x + b * y + c, d * x + e * y + f];
      const rgb = [0, 1, 2].map((k) => {
        let sum = 0;
        for (const [px, wx] of [
          [Math.floor(u), 1 - (u - Math.floor(u))],
          [Math.floor(u) + 1, u - Math.floor(u)],
        ])
          for (const [py, wy] of [
            [Math.floor(v), 1 - (v - Math.floor(v))],
            [Math.floor(v) + 1, v - Math.floor(v)],
          ])
            if (px >= 0 && py >= 0 && px < picture.width && py < picture.height)
              sum += wx * wy * picture.data[(py * picture.width + px) * 4 + k];
        return sum;
      });
      const values =
        order === 'gray'
          ? [0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]]
          : order === 'bgr'
            ? [...rgb].reverse()
            : rgb;
      const at = (y * width + column) * channels;
      for (const [k, value] of values.entries()) out[at + k] = (value - mean) * scale;
    }
  }
  return out;
}

/** What the embedder has to give, the net itself taken for granted (it has tests of its own). */
async function expected(
  picture: Picture,
  points: Points,
  weights: Weights,
  flip: boolean,
): Promise<Float64Array> {
  const net = recogniserOf(weights.metadata.net, weights.metadata)!;
  const model = new Model(await sharedGpu(), net.build, weights.state);
  try {
    const executable = await model.at([1, net.height, net.width, net.channels]);
    const sum = new Float64Array(net.dimension);
    for (const mirror of flip ? [false, true] : [false]) {
      const { embedding } = await executable.run({ x: warp(picture, points, weights, mirror) });
      for (const [i, v] of embedding.entries()) sum[i] += v;
    }
    const norm = Math.hypot(...sum);
    return sum.map((v) => v / norm);
  } finally {
    await model.destroy();
  }
}

const furthest = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (v, i) => Math.abs(v - b[i])));

/** Five points of a face somewhere in the picture, turned and scaled. */
const face = (angle: number, scale: number, x: number, y: number): Points =>
  TEMPLATE_112.map(([u, v]) => {
    const [p, q] = [(u - 56) * scale, (v - 70) * scale];
    return [
      x + p * Math.cos(angle) - q * Math.sin(angle),
      y + p * Math.sin(angle) + q * Math.cos(angle),
    ] as const;
  });

const picture = blobs(230, 170);

describe('embeddings', () => {
  const variants: [string, Weights, boolean][] = [
    ['RGB with its mirror image', randomRecogniser(), true],
    ['RGB alone', randomRecogniser(), false],
    ['BGR', randomRecogniser({ mean: 127.5, scale: 1 / 127.5, order: 'bgr' }), false],
    ['gray, 112×96', randomRecogniser({ mean: 100, scale: 1 / 64, order: 'gray' }, 96), true],
  ];
  for (const [name, weights, flip] of variants) {
    it(`are those of an aligned face: ${name}`, async () => {
      // The second lies partly outside the picture.
      const points = [face(0.2, 1.1, 110, 90), face(-0.5, 0.8, 20, 150)];
      await withEmbedder(weights, { flip }, async (e) => {
        const found = await e.embed(picture, points);
        expect(found).toHaveLength(2);
        for (const [i, embedding] of found.entries()) {
          expect(embedding).toHaveLength(e.dimension);
          expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
          expect(furthest(embedding, await expected(picture, points[i], weights, flip))).toBeLessThan(2e-4);
        }
        // Different faces, or the comparison would show nothing.
        expect(furthest(found[0], found[1])).toBeGreaterThan(0.02);
      });
    });
  }

  it('do not depend on the batch or on calls that overlap', async () => {
    const many = Array.from({ length: 18 }, (_, i) => face(0.1 * i, 0.6 + 0.05 * i, 60 + 6 * i, 80));
    await withEmbedder(randomRecogniser(), {}, async (e) => {
      const [all, some, ...single] = await Promise.all([
        e.embed(picture, many),
        e.embed(picture, many.slice(3, 6)),
        e.embed(picture, [many[0]]),
        e.embed(picture, [many[17]]),
      ]);
      expect(all).toHaveLength(18);
      expect(furthest(all[0], single[0][0])).toBeLessThan(1e-5);
      expect(furthest(all[17], single[1][0])).toBeLessThan(1e-5);
      for (const [i, embedding] of some.entries()) expect(furthest(all[i + 3], embedding)).toBeLessThan(1e-5);
      expect(await e.embed(picture, [])).toEqual([]);
    });
  });

  it('take aligned pictures as they are, and centre those of another size', async () => {
    const aligned = [1, 2, 3, 4, 5].map((seed) => blobs(112, 112, seed));
    await withEmbedder(randomRecogniser(undefined, 96), {}, async (e) => {
      const found = await e.embedAligned(aligned);
      for (const [i, p] of aligned.entries()) {
        const [same] = await e.embed(p, [TEMPLATE_112]);
        expect(furthest(found[i], same)).toBeLessThan(1e-4);
      }
      // A border of eight pixels is what a 112×96 net does not see.
      const framed = blobs(112, 112, 1);
      for (let y = 0; y < 112; y++) {
        framed.data.fill(7, y * 448, y * 448 + 32);
        framed.data.fill(7, y * 448 + 416, y * 448 + 448);
      }
      expect(await e.embedAligned([framed])).toEqual(await e.embedAligned([aligned[0]]));
      // A small one stands in black.
      const [small] = await e.embedAligned([blobs(50, 40)]);
      expect(Math.hypot(...small)).toBeCloseTo(1, 5);
      expect(await e.embedAligned([])).toEqual([]);
    });
  });

  it('leave no buffers behind over a hundred calls', async () => {
    const gpu = await sharedGpu();
    await withEmbedder(smallRecogniser(), {}, async (e) => {
      const points = [face(0, 1, 100, 80), face(0.3, 0.9, 80, 90)];
      for (const n of [2, 1]) await e.embed(picture, points.slice(0, n));
      const warm = memory(gpu);
      for (let i = 0; i < 100; i++) await e.embed(picture, points.slice(0, 1 + (i % 2)));
      expect(memory(gpu)).toEqual(warm);
    });
  });

  it('of more faces take scratch memory for the largest batch alone, and no further pipelines', async () => {
    const gpu = await sharedGpu();
    const faces = (n: number) => Array.from({ length: n }, (_, i) => face(0.1 * i, 1, 100, 80));
    const used = async (counts: number[]) => {
      const before = memory(gpu);
      let bytes = 0;
      await withEmbedder(smallRecogniser(), {}, async (e) => {
        for (const n of counts) await e.embed(picture, faces(n));
        bytes = memory(gpu).bytes - before.bytes;
      });
      return bytes;
    };
    // Staging memory stays for the next user.
    await used([16]);
    // Either way the same sizes are compiled at the end, the largest of them first or last.
    const falling = await used([16, 3, 2, 1]);
    const { size } = gpu.pipelines;
    expect(await used([1, 2, 3, 16, 3, 2, 1])).toBe(falling);
    await used([5, 7, 10]);
    expect(gpu.pipelines.size).toBe(size);
  });

  it('refuse weights of a detector', async () => {
    const gpu = await sharedGpu();
    expect(() => Embedder.create(gpu, randomMtcnn())).toThrow(FaceError);
  });
});
