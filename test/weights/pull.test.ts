import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { pull } from '../../src/weights/pull.node.js';
import { REGISTRY, type RegistryEntry } from '../../src/weights/registry.js';

const content = Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * 7919) % 251));
const sha256 = createHash('sha256').update(content).digest('hex');

let server: Server;
let origin: string;
let handler: (request: IncomingMessage, response: ServerResponse) => void;
let seen: { url: string; range?: string }[] = [];
let cache: string;

beforeAll(async () => {
  server = createServer((request, response) => {
    seen.push({ url: request.url!, range: request.headers.range });
    handler(request, response);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => void server.close());
beforeEach(async () => {
  seen = [];
  cache = await mkdtemp(path.join(tmpdir(), 'wfr-pull-'));
});
afterEach(() => rm(cache, { recursive: true }));

const registry = (...urls: string[]): RegistryEntry[] => [
  {
    name: 'net',
    net: 'mtcnn',
    licence: 'MIT',
    note: '',
    files: [{ name: 'net.bin', bytes: content.length, sha256, urls: urls.map((u) => origin + u) }],
  },
];
const target = () => path.join(cache, 'net', 'net.bin');
const get = (urls: string[], more = {}) => pull('net', { cache, registry: registry(...urls), ...more });

/** Serves the file properly, with ranges; a cut comes when what was sent has reached the client's disk. */
function serve(
  request: IncomingMessage,
  response: ServerResponse,
  cutAfter = Number.POSITIVE_INFINITY,
): void {
  const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const part = content.subarray(from);
  response.writeHead(from > 0 ? 206 : 200, { 'content-length': part.length, etag: '"v1"' });
  if (part.length <= cutAfter) return void response.end(part);
  const partFile = `${target()}.part`;
  const cut = () => {
    if (existsSync(partFile) && statSync(partFile).size >= from + cutAfter) response.destroy();
    else setTimeout(cut, 5);
  };
  response.write(part.subarray(0, cutAfter), cut);
}

describe('pull', () => {
  it('downloads, checks, renames, and does not download twice', async () => {
    handler = serve;
    const steps: number[] = [];
    const { folder } = await get(['/a'], { onProgress: (done: number) => steps.push(done) });
    expect(await readFile(target())).toEqual(content);
    expect(await readdir(folder)).toEqual(['net.bin']);
    expect(steps.at(-1)).toBe(content.length);
    await get(['/a']);
    expect(seen.length).toBe(1);
  });

  it('continues where a connection was cut', async () => {
    handler = (request, response) => serve(request, response, 20_000);
    await get(['/a']);
    expect(await readFile(target())).toEqual(content);
    expect(seen.map((s) => s.range)).toEqual([undefined, 'bytes=20000-', 'bytes=40000-']);
  });

  it('keeps what arrived for the next run when the server dies, and resumes from it', async () => {
    let alive = true;
    handler = (request, response) => {
      if (alive) serve(request, response, 30_000);
      else response.destroy();
      alive = false;
    };
    await expect(get(['/a'])).rejects.toThrow(/could not be downloaded/);
    expect((await readFile(`${target()}.part`)).length).toBe(30_000);
    handler = serve;
    seen = [];
    await get(['/a']);
    expect(seen).toEqual([{ url: '/a', range: 'bytes=30000-' }]);
    expect(await readFile(target())).toEqual(content);
  });

  it('starts afresh with a server that ignores ranges', async () => {
    let first = true;
    handler = (request, response) => {
      if (!first) delete request.headers.range;
      serve(request, response, first ? 20_000 : undefined);
      first = false;
    };
    await get(['/a']);
    expect(await readFile(target())).toEqual(content);
  });

  it.each([
    ['wrong bytes of the right length', () => Buffer.alloc(content.length, 1), /SHA-256 is .* was expected/],
    ['too few bytes', () => content.subarray(0, 100), /offers 100 bytes, 50000 were expected/],
    ['too many bytes', () => Buffer.concat([content, content]), /offers 100000 bytes/],
  ])('refuses %s and keeps nothing under the final name', async (_, body, message) => {
    handler = (_request, response) =>
      void response.writeHead(200, { 'content-length': body().length }).end(body());
    await expect(get(['/a'])).rejects.toThrow(message);
    expect(existsSync(target())).toBe(false);
  });

  it('stops a server that sends without end', async () => {
    handler = (_request, response) => {
      response.writeHead(200, { 'transfer-encoding': 'chunked' });
      const more = setInterval(() => response.write(Buffer.alloc(16384)), 1);
      response.on('close', () => clearInterval(more));
    };
    await expect(get(['/a'])).rejects.toThrow(/sends more than the 50000 bytes/);
    expect(existsSync(target())).toBe(false);
  });

  it('goes on to the next address after a 404, and tries a given mirror first', async () => {
    handler = (request, response) =>
      request.url === '/b' ? serve(request, response) : void response.writeHead(404).end();
    await get(['/a', '/b'], { mirror: `${origin}/mirror/` });
    expect(seen.map((s) => s.url)).toEqual(['/mirror/net.bin', '/a', '/b']);
    expect(await readFile(target())).toEqual(content);
  });

  it('takes files from a folder, checked the same', async () => {
    const from = await mkdtemp(path.join(tmpdir(), 'wfr-from-'));
    await expect(get(['/a'], { from })).rejects.toThrow(/no such file/);
    await writeFile(path.join(from, 'net.bin'), 'something else');
    await expect(get(['/a'], { from })).rejects.toThrow(/is not the published net\.bin/);
    await writeFile(path.join(from, 'net.bin'), content);
    await get(['/a'], { from });
    expect(await readFile(target())).toEqual(content);
    expect(seen).toEqual([]);
    await rm(from, { recursive: true });
  });

  it('names what it knows when asked for something else', async () => {
    await expect(pull('nothing', { cache })).rejects.toThrow(/no weights named nothing\. Known: mtcnn/);
  });
});

describe('the published list', () => {
  it('has a checksum, a size and an https address for every file', () => {
    for (const entry of REGISTRY) {
      for (const file of entry.files) {
        expect(file.sha256).toMatch(/^[0-9a-f]{64}$/);
        expect(file.bytes).toBeGreaterThan(1000);
        expect(file.urls.length).toBeGreaterThan(0);
        for (const url of file.urls) expect(url).toMatch(/^https:\/\/.*\.(pt|ckpt|onnx|safetensors)$/);
      }
    }
  });
});
