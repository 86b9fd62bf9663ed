import { describe, expect, it } from 'vitest';
import {
  type Affine,
  invert,
  type Points,
  similarity,
  TEMPLATE_112,
  templateFor,
} from '../../src/face/align.js';
import { alignFace, cropFace } from '../../src/face/crops.js';

const apply = ([a, b, c, d, e, f]: Affine, points: Points) =>
  points.map(([x, y]) => [a * x + b * y + c, d * x + e * y + f] as const);

const squaredError = (m: Affine, from: Points, to: Points) =>
  apply(m, from).reduce((s, [x, y], i) => s + (x - to[i][0]) ** 2 + (y - to[i][1]) ** 2, 0);

/** The same least-squares problem by its normal equations, solved by elimination. */
function bySolving(from: Points, to: Points): Affine {
  // Rows: [x, −y, 1, 0 | u], [y, x, 0, 1 | v] for the unknowns a, b, c, d of [a −b c; b a d].
  const rows = from.flatMap(([x, y], i) => [
    [x, -y, 1, 0, to[i][0]],
    [y, x, 0, 1, to[i][1]],
  ]);
  const m = [0, 1, 2, 3].map((i) => [0, 1, 2, 3, 4].map((j) => rows.reduce((s, r) => s + r[i] * r[j], 0)));
  for (let i = 0; i < 4; i++) {
    for (let k = 0; k < 4; k++) {
      if (k === i) continue;
      const f = m[k][i] / m[i][i];
      for (let j = i; j < 5; j++) m[k][j] -= f * m[i][j];
    }
  }
  const [a, b, c, d] = m.map((r, i) => r[4] / r[i]);
  return [a, -b, c, b, a, d];
}

describe('similarity', () => {
  it('recovers rotation, scale and shift', () => {
    for (const [angle, scale] of [
      [0, 1],
      [0.7, 0.25],
      [-2.9, 4],
      [Math.PI, 1.5],
    ]) {
      const [a, b] = [scale * Math.cos(angle), scale * Math.sin(angle)];
      const truth: Affine = [a, -b, 31, b, a, -12];
      const found = similarity(TEMPLATE_112, apply(truth, TEMPLATE_112));
      for (const [i, v] of found.entries()) expect(v).toBeCloseTo(truth[i], 9);
    }
  });

  it('is the least-squares solution where none is exact', () => {
    const from: Points = [
      [101, 120],
      [148, 112],
      [130, 150],
      [110, 172],
      [150, 166],
    ];
    const found = similarity(from, TEMPLATE_112);
    for (const [i, v] of bySolving(from, TEMPLATE_112).entries()) expect(found[i]).toBeCloseTo(v, 9);
    const best = squaredError(found, from, TEMPLATE_112);
    for (const i of [0, 1, 2, 5]) {
      const [a, b, c, , , f] = found.map((v, k) => (k === i ? v * 1.001 : v));
      expect(squaredError([a, b, c, -b, a, f], from, TEMPLATE_112)).toBeGreaterThan(best);
    }
  });

  it('never reflects', () => {
    const mirrored: Points = TEMPLATE_112.map(([x, y]) => [112 - x, y] as const);
    const [a, b, , d, e] = similarity(mirrored, TEMPLATE_112);
    expect(a * e - b * d).toBeGreaterThan(0);
  });

  it('stays finite when all points are one', () => {
    const same: Points = TEMPLATE_112.map(() => [5, 7] as const);
    const found = similarity(same, TEMPLATE_112);
    expect(found.every(Number.isFinite)).toBe(true);
    expect(invert(found).every(Number.isFinite)).toBe(true);
  });

  it('inverts', () => {
    const m: Affine = [2, -3, 5, 3, 2, -7];
    const back = apply(invert(m), apply(m, TEMPLATE_112));
    for (const [i, [x, y]] of back.entries()) {
      expect(x).toBeCloseTo(TEMPLATE_112[i][0], 10);
      expect(y).toBeCloseTo(TEMPLATE_112[i][1], 10);
    }
  });
});

describe('the template', () => {
  it('loses eight pixels either side for 112×96 and scales with the height', () => {
    expect(templateFor(112, 112)).toEqual(TEMPLATE_112);
    for (const [i, [x, y]] of templateFor(112, 96).entries()) {
      expect(x).toBeCloseTo(TEMPLATE_112[i][0] - 8, 12);
      expect(y).toBe(TEMPLATE_112[i][1]);
    }
    // Pixel centres: 112 averaged down by two has its pixel k at 2k + 0.5.
    expect(templateFor(224, 224)[2][0]).toBeCloseTo(2 * TEMPLATE_112[2][0] + 0.5, 12);
    expect(templateFor(56, 56)[3][1]).toBeCloseTo((TEMPLATE_112[3][1] - 0.5) / 2, 12);
  });
});

/** A picture whose red is x and green is y. */
function ramp(width: number, height: number) {
  const data = new Uint8Array(width * height * 4);
  for (let i = 0; i < width * height; i++) data.set([i % width, Math.floor(i / width), 0, 255], i * 4);
  return { width, height, data };
}

describe('cutting faces out', () => {
  it('puts the landmarks onto the template', () => {
    const picture = ramp(250, 250);
    const points: Points = TEMPLATE_112.map(([x, y]) => [x * 1.5 + 20, y * 1.5 + 30] as const);
    const face = alignFace(picture, points);
    for (const [x, y] of [
      [0, 0],
      [56, 72],
      [111, 111],
    ]) {
      const at = (y * 112 + x) * 4;
      // Bilinear on a ramp is exact; 0.5 is the rounding to bytes.
      expect(Math.abs(face.data[at] - (x * 1.5 + 20))).toBeLessThanOrEqual(0.5 + 1e-6);
      expect(Math.abs(face.data[at + 1] - (y * 1.5 + 30))).toBeLessThanOrEqual(0.5 + 1e-6);
      expect(face.data[at + 3]).toBe(255);
    }
  });

  it('is black outside the picture', () => {
    const points: Points = TEMPLATE_112.map(([x, y]) => [x - 60, y + 10] as const);
    const face = alignFace(ramp(100, 200), points);
    expect([...face.data.subarray(0, 4)]).toEqual([0, 0, 0, 255]);
    const at = (5 * 112 + 100) * 4;
    expect([...face.data.subarray(at, at + 4)]).toEqual([40, 15, 0, 255]);
  });

  it('crops with a margin, inside the picture', () => {
    const crop = cropFace(ramp(100, 80), { x1: 50, y1: 40, x2: 90, y2: 70 }, 0.5)!;
    expect([crop.width, crop.height]).toEqual([70, 55]);
    expect([...crop.data.subarray(0, 2)]).toEqual([30, 25]);
    expect(cropFace(ramp(100, 80), { x1: 150, y1: 40, x2: 190, y2: 70 })).toBeUndefined();
  });
});
