import { describe, expect, it } from 'vitest';
import { Program } from '../../src/gpu/program.js';
import { compactCandidates } from '../../src/kernels/candidates/compact.js';
import { resizeReference, warpReference } from '../../src/kernels/picture/reference.js';
import { type ResizePart, resizeRectangles } from '../../src/kernels/picture/resize.js';
import { type ChannelOrder, warpFaces } from '../../src/kernels/picture/warp.js';
import { cosineTopK, topKChunks } from '../../src/kernels/topk/forward.js';
import { Buffers, checkOp, noise, sharedGpu } from '../check_op.js';

/** A picture in which every pixel differs from its neighbours. */
function bitmap(width: number, height: number) {
  const data = Uint8Array.from(
    { length: width * height * 4 },
    (_, i) => (i * 37 + Math.floor(i / 7) * 11) % 256,
  );
  return { width, height, data };
}
/** As on the GPU: a multiple of four pixels, of which the last are none of the picture's. */
function words({ data }: { data: Uint8Array }): Uint8Array {
  const out = new Uint8Array(Math.ceil(data.length / 16) * 16).fill(255);
  out.set(data);
  return out;
}
const normal = { mean: 127.5, scale: 1 / 128 };
const concat = (parts: Float64Array[]) => Float64Array.from(parts.flatMap((p) => [...p]));

describe('resize by area', () => {
  const picture = bitmap(37, 23);
  const rectangles = [
    [0, 0, 37, 23],
    [3, 5, 20, 9],
    [36, 22, 37, 23],
    [10, 0, 12, 23],
  ];

  it.each([
    [24, 24],
    [48, 48],
    [5, 7],
    [23, 37],
    [1, 1],
  ])('four rectangles to %i×%i', async (h, w) => {
    const gpu = await sharedGpu();
    const shape = [4, h, w, 3];
    const expected = concat(rectangles.map((r) => resizeReference(picture, r, h, w, normal)));
    await checkOp(gpu, (buffers) => {
      const y = buffers.output(shape);
      const operand = { ref: buffers.bytes(words(picture)), width: 37, height: 23 };
      const calls = resizeRectangles(operand, buffers.bytes(Uint32Array.from(rectangles.flat())), y, normal);
      return {
        calls,
        outputs: [{ name: 'resized', shape, expected, magnitude: expected.map(() => 2), operand: y }],
      };
    });
  });

  it('a part of a level is that part of the whole level', async () => {
    const gpu = await sharedGpu();
    const part: ResizePart = { height: 17, width: 29, top: 4, left: 6 };
    const whole = resizeReference(picture, rectangles[0], 17, 29, normal);
    const shape = [1, 9, 11, 3];
    const expected = Float64Array.from({ length: 9 * 11 * 3 }, (_, i) => {
      const [k, x, y] = [i % 3, Math.floor(i / 3) % 11, Math.floor(i / 33)];
      return whole[((y + 4) * 29 + x + 6) * 3 + k];
    });
    await checkOp(gpu, (buffers) => {
      const y = buffers.output(shape);
      const operand = { ref: buffers.bytes(words(picture)), width: 37, height: 23 };
      const calls = resizeRectangles(
        operand,
        buffers.bytes(Uint32Array.from(rectangles[0])),
        y,
        normal,
        part,
      );
      return {
        calls,
        outputs: [{ name: 'part', shape, expected, magnitude: expected.map(() => 2), operand: y }],
      };
    });
  });
});

describe('warp', () => {
  const picture = bitmap(31, 27);
  // Identity, rotation with scale, one that looks far outside, and one that enlarges.
  const maps = [
    [1, 0, 0, 0, 1, 0],
    [0.8, -0.6, 9.25, 0.6, 0.8, -2.5],
    [3, 0, -20, 0, 3, -11],
    [0.21, 0.02, 4.4, -0.02, 0.21, 7.7],
  ];

  it.each<[ChannelOrder, boolean, number | undefined]>([
    ['rgb', false, undefined],
    ['rgb', true, 2],
    ['bgr', false, 3],
    ['gray', true, 1],
  ])('%s, mirror %s, samples %s', async (order, mirror, samples) => {
    const gpu = await sharedGpu();
    const [h, w] = [13, 11];
    const c = order === 'gray' ? 1 : 3;
    const faces = maps.map((m) => warpReference(picture, m, h, w, { ...normal, order, samples }));
    const mirrored = faces.map((f) =>
      f.map((_, i) => f[(Math.floor(i / c / w) * w + w - 1 - (Math.floor(i / c) % w)) * c + (i % c)]),
    );
    const expected = concat(mirror ? [...faces, ...mirrored] : faces);
    const shape = [mirror ? 8 : 4, h, w, c];
    await checkOp(gpu, (buffers) => {
      const y = buffers.output(shape);
      const operand = { ref: buffers.bytes(picture.data), width: 31, height: 27 };
      const table = Float32Array.from(maps.flatMap((m) => [...m, samples ?? 0, 0]));
      const calls = warpFaces(operand, buffers.bytes(table), y, { ...normal, order, mirror });
      // Coordinates of up to 40 pixels carry f32's rounding into values that change by up to 255 a pixel.
      return {
        calls,
        outputs: [{ name: order, shape, expected, magnitude: expected.map(() => 64), steps: 16, operand: y }],
      };
    });
  });
});

describe('candidates', () => {
  it('gathers every cell over the threshold, counts what found no room', async () => {
    const gpu = await sharedGpu();
    const buffers = new Buffers(gpu);
    const [h, w] = [9, 7];
    const scores = noise(h * w).map(Math.abs);
    const prob = Float32Array.from({ length: h * w * 2 }, (_, i) =>
      i % 2 ? scores[i >> 1] : 1 - scores[i >> 1],
    );
    const box = noise(h * w * 4, 9);
    const over = [...scores.keys()].filter((i) => scores[i] >= 0.6);
    for (const capacity of [64, 5]) {
      const found = buffers.bytes(new Uint32Array(4));
      const list = buffers.bytes(new Float32Array(capacity * 8));
      const calls = compactCandidates(
        buffers.operand(prob, [1, h, w, 2]),
        buffers.operand(box, [1, h, w, 4]),
        found,
        list,
        { threshold: 0.6, level: 3, capacity, left: 10, top: 20 },
      );
      const program = await Program.create(gpu, calls);
      const [count, entries] = await gpu.runAndRead((e) => program.record(e), [found, list]);
      program.destroy();
      expect(new Uint32Array(count)[0]).toBe(over.length);
      const rows = Array.from({ length: Math.min(capacity, over.length) }, (_, i) => [
        ...new Float32Array(entries).subarray(8 * i, 8 * i + 8),
      ]);
      const cells = rows.map((r) => (r[1] - 20) * w + r[0] - 10);
      expect(new Set(cells).size).toBe(rows.length);
      for (const [k, r] of rows.entries()) {
        expect(over).toContain(cells[k]);
        expect(r.slice(2)).toEqual([scores[cells[k]], 3, ...box.subarray(4 * cells[k], 4 * cells[k] + 4)]);
      }
      if (capacity === 64) expect(cells.sort((a, b) => a - b)).toEqual(over);
    }
    buffers.destroy();
  });
});

describe('cosine top-k', () => {
  it.each([
    [1, 1, 4, 3],
    [3, 5, 7, 16],
    [2, 1000, 128, 5],
    [5, 257, 32, 1],
  ])('%i queries, %i rows of %i, best %i', async (q, m, d, k) => {
    const gpu = await sharedGpu();
    const buffers = new Buffers(gpu);
    const [queries, bank] = [noise(q * d, 1), noise(m * d, 2)];
    // Equal rows: the lower index has to win.
    if (m > 4) bank.copyWithin(4 * d, d, 2 * d);
    const make = (entries: number) => ({
      scores: buffers.bytes(new Float32Array(entries)),
      rows: buffers.bytes(new Uint32Array(entries)),
    });
    const [partial, result] = [make(q * topKChunks(m) * k), make(q * k)];
    const program = await Program.create(
      gpu,
      cosineTopK(buffers.operand(queries, [q, d]), buffers.operand(bank, [m, d]), k, partial, result),
    );
    const [scores, rows] = await gpu.runAndRead((e) => program.record(e), [result.scores, result.rows]);
    program.destroy();
    for (let i = 0; i < q; i++) {
      const all = Array.from({ length: m }, (_, r) => {
        let sum = 0;
        for (let j = 0; j < d; j++) sum += queries[i * d + j] * bank[r * d + j];
        return { r, sum: Math.fround(sum) };
      });
      const best = all.sort((a, b) => b.sum - a.sum || a.r - b.r).slice(0, k);
      for (let j = 0; j < k; j++) {
        const [row, score] = [new Uint32Array(rows)[i * k + j], new Float32Array(scores)[i * k + j]];
        if (j >= m) expect(row).toBe(0xffffffff);
        else {
          expect(Math.abs(score - best[j].sum)).toBeLessThan(1e-5);
          // Sums that agree to rounding may change places; which row was meant shows in its own sum.
          expect(Math.abs(all.find((a) => a.r === row)!.sum - score)).toBeLessThan(1e-5);
        }
      }
      if (m > 4 && k > 1) {
        const found = [...new Uint32Array(rows)].slice(i * k, i * k + k);
        if (found.includes(4)) expect(found.indexOf(1)).toBeLessThan(found.indexOf(4));
      }
    }
    buffers.destroy();
  });
});
