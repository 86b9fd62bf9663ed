/** What the benches share: JSON lines of rounded numbers, the adapter's name, where the photos are. */
import path from 'node:path';
import type { Gpu } from '../src/gpu/gpu.js';

export const emit = (line: object) => console.log(JSON.stringify(line));
export const round = (v: number, digits = 1) => Number(v.toFixed(digits));
export const mean = (list: readonly number[]) => list.reduce((a, b) => a + b, 0) / list.length;
export const median = (list: readonly number[]) => [...list].sort((a, b) => a - b)[list.length >> 1];

export function adapterName({ adapter }: Gpu): string {
  const { vendor, architecture, description } = adapter.info;
  return [vendor, architecture, description].filter(Boolean).join(' ');
}

/** Six group photos that come with a development package. */
export const GROUP_PHOTOS = path.join(
  import.meta.dirname,
  '..',
  'node_modules',
  '@vladmandic',
  'face-api',
  'demo',
);
