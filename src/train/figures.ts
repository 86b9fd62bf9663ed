/** Figures of a step out of what its losses leave for each picture. */
import { UNLABELLED } from './data/source.js';

export function identityFigures(rows: Float32Array | undefined, labels: Uint32Array) {
  if (!rows) return {};
  let [known, hits, entropy] = [0, 0, 0];
  for (const [i, y] of labels.entries()) {
    if (y === UNLABELLED) continue;
    known++;
    entropy += rows[i * 4 + 2];
    hits += rows[i * 4 + 3];
  }
  return known > 0 ? { accuracy: hits / known, identityLoss: entropy / known } : {};
}

export function distillFigures(rows: Float32Array | undefined) {
  if (!rows) return {};
  let [n, distance, square] = [0, 0, 0];
  for (let i = 0; i < rows.length; i += 3) {
    distance += rows[i];
    square += rows[i + 1];
    n += rows[i + 2];
  }
  return n > 0 ? { distance: distance / n, relation: square / n ** 2 } : {};
}

/** Means over the batches of a step; what not every batch has is averaged over those that have it. */
export function meanOf<T extends object>(parts: readonly T[]): T {
  if (parts.length === 1) return parts[0];
  const keys = new Set(parts.flatMap((p) => Object.keys(p))) as Set<keyof T>;
  const mean = (key: keyof T) => {
    const values = parts.map((p) => p[key]).filter((v) => v !== undefined) as number[];
    return values.reduce((a, b) => a + b, 0) / values.length;
  };
  return Object.fromEntries([...keys].map((key) => [key, mean(key)])) as T;
}
