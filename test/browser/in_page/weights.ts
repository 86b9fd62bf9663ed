import { type FetchProgress, fetchWeights } from '../../../src/weights/fetch.js';

/** Loads weights by URL: their names, and every step of progress. */
export async function load(url: string, sha256: string | undefined) {
  const progress: FetchProgress[] = [];
  try {
    const weights = await fetchWeights({ url, sha256 }, { onProgress: (p) => progress.push(p) });
    return { net: weights.metadata.net, tensors: weights.state.size, progress };
  } catch (error) {
    return { error: `${(error as Error).name}: ${(error as Error).message}` };
  }
}

/** Damages what Cache Storage holds. */
export async function damage(): Promise<number> {
  const cache = await caches.open('wfr-weights');
  const keys = await cache.keys();
  for (const key of keys) await cache.put(key, new Response(new Uint8Array(99)));
  return keys.length;
}
