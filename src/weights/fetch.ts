import type { Weights } from './convert.js';
import { WeightsError } from './errors.js';
import { readWeights } from './read.js';

export interface WeightsUrl {
  url: string | URL;
  /** Lower-case hex. With it the bytes are checked, and kept in the browser's Cache Storage under this sum. */
  sha256?: string;
}

export interface FetchProgress {
  /** Bytes so far, of all files. */
  done: number;
  /** Bytes of all files; undefined until every server has told its own. */
  total: number | undefined;
}

export interface FetchWeightsOptions {
  onProgress?: (progress: FetchProgress) => void;
  signal?: AbortSignal;
  /** Name of the cache in Cache Storage; `false` keeps nothing. Default `wfr-weights`. */
  cache?: string | false;
  /** A file that turns out longer is refused. Default 1 GiB. */
  maxBytes?: number;
}

const GIB = 2 ** 30;

/**
 * Loads the file of a net, or the three of an MTCNN, by URL. A file with a checksum comes from Cache Storage the
 * next time, checked again; one without is fetched anew, since nothing tells whether a kept copy is still the
 * right one (the browser's own HTTP cache still serves).
 * @throws WeightsError when a file cannot be had, is too long, has another checksum or is no weights file.
 */
export async function fetchWeights(
  files: WeightsUrl | string | URL | readonly (WeightsUrl | string | URL)[],
  options: FetchWeightsOptions = {},
): Promise<Weights> {
  const list = (Array.isArray(files) ? files : [files]) as readonly (WeightsUrl | string | URL)[];
  const wanted = list.map((f): WeightsUrl => (typeof f === 'string' || f instanceof URL ? { url: f } : f));
  const done = wanted.map(() => 0);
  const totals: (number | undefined)[] = wanted.map(() => undefined);
  const sum = (values: readonly (number | undefined)[]) =>
    values.reduce<number | undefined>((a, b) => (a === undefined || b === undefined ? undefined : a + b), 0);
  const bytes = await Promise.all(
    wanted.map((file, i) =>
      fetchFile(file, options, (now, total) => {
        done[i] = now;
        totals[i] = total;
        options.onProgress?.({ done: sum(done)!, total: sum(totals) });
      }),
    ),
  );
  try {
    return readWeights(bytes);
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    throw new WeightsError(`${wanted.map((f) => f.url).join(', ')}: ${error.message}`);
  }
}

type Report = (done: number, total: number | undefined) => void;

async function fetchFile(
  { url, sha256 }: WeightsUrl,
  { cache: name = 'wfr-weights', signal, maxBytes = GIB }: FetchWeightsOptions,
  report: Report,
): Promise<Uint8Array> {
  const cache = sha256 && name ? await openCache(name) : undefined;
  // A key of its own for each content: the same file at two addresses is kept once.
  const key = `https://cache.invalid/${sha256?.toLowerCase()}`;
  const kept = await cache?.match(key);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if ((await digest(bytes)) === sha256!.toLowerCase()) {
      report(bytes.length, bytes.length);
      return bytes;
    }
    await cache!.delete(key);
  }
  const bytes = await download(url, maxBytes, signal, report);
  if (!sha256) return bytes;
  const found = await digest(bytes);
  if (found !== sha256.toLowerCase()) {
    throw new WeightsError(
      `${url}: its SHA-256 is ${found}, ${sha256} was expected: the file was changed or damaged, and is not used.`,
    );
  }
  // A full disk or a private window must not keep the weights from being used.
  await cache?.put(key, new Response(bytes as BufferSource)).catch(() => undefined);
  return bytes;
}

async function download(
  url: string | URL,
  maxBytes: number,
  signal: AbortSignal | undefined,
  report: Report,
): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new WeightsError(
      `${url} cannot be fetched: ${(error as Error).message}. Another site must allow it (Access-Control-Allow-Origin).`,
    );
  }
  if (!response.ok)
    throw new WeightsError(`${url}: the server answered ${response.status} ${response.statusText}.`);
  // The length is of the bytes sent, so of no use where they were compressed on the way.
  const length = response.headers.has('content-encoding')
    ? Number.NaN
    : Number(response.headers.get('content-length') ?? Number.NaN);
  const total = Number.isSafeInteger(length) && length > 0 ? length : undefined;
  const tooLong = () => new WeightsError(`${url} is longer than the ${maxBytes} bytes that are accepted.`);
  if (total !== undefined && total > maxBytes) throw tooLong();
  const parts: Uint8Array[] = [];
  let have = 0;
  const reader = response.body!.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      have += part.value.length;
      if (have > maxBytes) {
        await reader.cancel();
        throw tooLong();
      }
      report(have, total);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(`${url}: the connection ended after ${have} bytes: ${(error as Error).message}`);
  }
  report(have, have);
  const bytes = new Uint8Array(have);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Cache Storage is missing in Node, in pages without https and in some private windows. */
async function openCache(name: string): Promise<Cache | undefined> {
  try {
    return await globalThis.caches?.open(name);
  } catch {
    return undefined;
  }
}

/** SHA-256 in hexadecimal. */
export async function digest(bytes: Uint8Array): Promise<string> {
  if (!globalThis.crypto?.subtle)
    throw new WeightsError('A checksum can only be checked in a page served over https or from localhost.');
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as BufferSource));
  return [...sum].map((b) => b.toString(16).padStart(2, '0')).join('');
}
