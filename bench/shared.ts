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

/** How long work makes a card's clock rise. */
const RISE_MS = 500;

/** A card at rest runs at a fraction of its clock, an H200 at a sixth: makes it work before it is timed. */
export async function wakeUp(gpu: Gpu, work: () => Promise<unknown>): Promise<void> {
  if (gpu.traits.kind === 'cpu') return;
  for (const end = performance.now() + RISE_MS; performance.now() < end; ) await work();
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
