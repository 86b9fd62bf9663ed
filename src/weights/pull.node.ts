import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { copyFile, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { WeightsError } from './errors.js';
import { cacheFolder } from './load.node.js';
import { REGISTRY, type RegistryEntry, type RegistryFile } from './registry.js';

export interface PullOptions {
  /** Take the files from this folder instead of the network. */
  from?: string;
  /** Tried before the registry's own addresses: the files' names are appended. */
  mirror?: string;
  /** Where downloads go; the cache by default. */
  cache?: string;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
  /** For tests: instead of the published list. */
  registry?: readonly RegistryEntry[];
}

/**
 * Downloads weights into the cache: each file to NAME.part, resumed where a transfer broke off, checked by length
 * and SHA-256, and only then renamed.
 * @throws WeightsError when the name is unknown or no address gave the right bytes; a partial file stays for the
 *   next try.
 */
export async function pull(
  name: string,
  options: PullOptions = {},
): Promise<{ folder: string; entry: RegistryEntry }> {
  const registry = options.registry ?? REGISTRY;
  const entry = registry.find((e) => e.name === name);
  if (!entry)
    throw new WeightsError(
      `There are no weights named ${name}. Known: ${registry.map((e) => e.name).join(', ')}.`,
    );
  const folder = path.join(options.cache ?? cacheFolder(), entry.name);
  await mkdir(folder, { recursive: true });
  const total = entry.files.reduce((sum, f) => sum + f.bytes, 0);
  let before = 0;
  for (const file of entry.files) {
    const target = path.join(folder, file.name);
    if (!(existsSync(target) && (await sha256(target)) === file.sha256)) {
      const report = (done: number) => options.onProgress?.(before + done, total);
      if (options.from) await take(path.join(options.from, file.name), target, file);
      else await download(target, file, options, report);
    }
    before += file.bytes;
    options.onProgress?.(before, total);
  }
  return { folder, entry };
}

/** Whether every file of an entry is in the cache; a download in progress has other names. */
export const isPulled = (entry: RegistryEntry, cache = cacheFolder()): boolean =>
  entry.files.every((f) => existsSync(path.join(cache, entry.name, f.name)));

/** The offline way: a copy, checked the same. */
async function take(source: string, target: string, file: RegistryFile): Promise<void> {
  if (!existsSync(source))
    throw new WeightsError(`${source}: no such file. --from needs a folder with ${file.name}.`);
  const found = await sha256(source);
  if (found !== file.sha256)
    throw new WeightsError(
      `${source} is not the published ${file.name}: its SHA-256 is ${found}, ${file.sha256} was expected.`,
    );
  await copyFile(source, `${target}.tmp`);
  await rename(`${target}.tmp`, target);
}

/** Tries a connection that breaks off may cost before the next address. */
const ATTEMPTS = 4;

async function download(
  target: string,
  file: RegistryFile,
  options: PullOptions,
  report: (done: number) => void,
): Promise<void> {
  const urls = [
    ...(options.mirror ? [`${options.mirror.replace(/\/$/, '')}/${file.name}`] : []),
    ...file.urls,
  ];
  const part = `${target}.part`;
  const problems: string[] = [];
  for (const url of urls) {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      options.signal?.throwIfAborted();
      const before = await sizeOf(part);
      try {
        await fetchPart(url, part, file, options.signal, report);
      } catch (error) {
        options.signal?.throwIfAborted();
        problems.push(`${url}: ${(error as Error).message}`);
        // Another try at the same address pays only where the last one got somewhere.
        if (error instanceof WeightsError || (await sizeOf(part)) <= before) break;
        continue;
      }
      const found = await sha256(part);
      if (found === file.sha256) return rename(part, target);
      await rm(part, { force: true });
      problems.push(
        `${url}: its SHA-256 is ${found}, ${file.sha256} was expected: the file was changed or damaged, and was not kept`,
      );
      break;
    }
  }
  throw new WeightsError(
    `${file.name} could not be downloaded.\n  ${problems.join('\n  ')}\nGet it by other means and run wfr weights pull with --from FOLDER.`,
  );
}

/** One request, continuing after what the part file holds; leaves what arrived when it fails. */
async function fetchPart(
  url: string,
  part: string,
  file: RegistryFile,
  signal: AbortSignal | undefined,
  report: (done: number) => void,
): Promise<void> {
  let have = await sizeOf(part);
  if (have >= file.bytes) {
    if (have === file.bytes) return;
    await rm(part);
    have = 0;
  }
  const tagFile = `${part}.etag`;
  const tag = have > 0 && existsSync(tagFile) ? await readFile(tagFile, 'utf8') : undefined;
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (have > 0) {
    headers.range = `bytes=${have}-`;
    // Without a tag of the same file the server cannot promise that the rest fits; the checksum decides.
    if (tag) headers['if-range'] = tag;
  }
  const response = await fetch(url, { headers, signal });
  if (response.status !== 200 && response.status !== 206)
    throw new WeightsError(`the server answered ${response.status} ${response.statusText}`);
  if (response.status === 200) have = 0;
  const length = Number(response.headers.get('content-length') ?? Number.NaN);
  if (!Number.isNaN(length) && have + length !== file.bytes) {
    throw new WeightsError(`the server offers ${have + length} bytes, ${file.bytes} were expected`);
  }
  const etag = response.headers.get('etag');
  if (etag) await writeFile(tagFile, etag);
  const handle = await open(part, have > 0 ? 'r+' : 'w');
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      if (have + chunk.length > file.bytes)
        throw new WeightsError(`the server sends more than the ${file.bytes} bytes that were expected`);
      await handle.write(chunk, 0, chunk.length, have);
      have += chunk.length;
      report(have);
    }
  } finally {
    await handle.close();
  }
  if (have !== file.bytes) throw new Error(`the connection ended after ${have} of ${file.bytes} bytes`);
  await rm(tagFile, { force: true });
}

const sizeOf = async (file: string): Promise<number> => (existsSync(file) ? (await stat(file)).size : 0);

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
