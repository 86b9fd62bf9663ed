import type { Face } from '../../../src/face/detector.js';

/** A frontal face around a point. */
export function faceAt(x: number, y: number, size: number): Face {
  const half = size / 2;
  const points = [
    [-0.2, -0.15],
    [0.2, -0.15],
    [0, 0.05],
    [-0.15, 0.25],
    [0.15, 0.25],
  ];
  return {
    box: { x1: x - half, y1: y - half, x2: x + half, y2: y + half },
    score: 0.99,
    landmarks: points.map(([dx, dy]) => [x + dx * size, y + dy * size] as const),
  };
}

export function unit(values: readonly number[]): Float32Array {
  const norm = Math.hypot(...values);
  return Float32Array.from(values, (v) => v / norm);
}

/** Independent directions: the noise of neighbouring seeds is alike. */
function direction(seed: number): number[] {
  return Array.from({ length: 64 }, (_, i) => {
    let h = Math.imul(seed * 64 + i + 1, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return ((h ^ (h >>> 16)) >>> 0) / 2 ** 31 - 1;
  });
}

/** An embedding of a person: always alike (cosine about 0.7), never like another's. */
export function lookOf(person: number, variant: number): Float32Array {
  const other = direction(5000 + 997 * person + variant);
  return unit(direction(person).map((v, i) => v + 0.65 * other[i]));
}
