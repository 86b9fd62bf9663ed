import { createHash } from 'node:crypto';
import { createCanvas } from '@napi-rs/canvas';
import type { Browser, Page } from 'playwright';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { writeSafetensors } from '../../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../../src/weights/metadata.js';
import { randomMtcnn } from '../face/helpers.js';
import { bundleInPage, executablePath, launch, NO_BROWSER, openPage, TestServer } from './harness.js';
import { NET_NAMES, runNet } from './in_page/nets.js';

let server: TestServer;
let browser: Browser;
let page: Page;
let errors: string[];
let node: Gpu;

type Place = 'page' | 'worker';
const PLACES: Place[] = ['page', 'worker'];

const call = <T>(place: Place, name: string, ...args: unknown[]): Promise<T> =>
  page.evaluate(
    ([p, n, a]) => (globalThis as unknown as { call(...args: unknown[]): Promise<T> }).call(p, n, a),
    [place, name, args] as const,
  ) as Promise<T>;

beforeAll(async () => {
  if (!executablePath) return;
  server = await TestServer.start();
  server.files.set('/', {
    type: 'text/html; charset=utf-8',
    body: '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/entry.js"></script>',
  });
  server.files.set('/entry.js', { type: 'text/javascript', body: await bundleInPage() });
  browser = await launch();
  ({ page, errors } = await openPage(browser, server.origin));
  await page.waitForFunction('globalThis.call !== undefined');
  node = await openGpu();
});

afterAll(async () => {
  node?.close();
  await browser?.close();
  await server?.close();
});

describe('in Chromium', () => {
  beforeEach((ctx) => ctx.skip(!executablePath, NO_BROWSER));

  it.each(NET_NAMES)('%s gives what it gives in Node, to 1e-4', async (name) => {
    const expected = await runNet(node, name);
    // The large net in one place only: the software adapter takes its time.
    for (const place of name === 'iResNet50' ? (['worker'] as const) : PLACES) {
      const actual = await call<Record<string, number[]>>(place, 'net', name);
      expect(Object.keys(actual)).toEqual(Object.keys(expected));
      for (const [output, values] of Object.entries(expected)) {
        const largest = Math.max(...values.map(Math.abs));
        const off = values.map((v, i) => Math.abs(v - actual[output][i]) / largest);
        expect(Math.max(...off), `${output} in a ${place}`).toBeLessThan(1e-4);
      }
    }
  });

  interface Seen {
    width: number;
    height: number;
    difference: number;
    used: string[];
    kept: number;
  }

  it.each([
    ['ImageData', 'writeBuffer', PLACES],
    ['OffscreenCanvas', 'copyExternalImageToTexture', PLACES],
    ['ImageBitmap', 'copyExternalImageToTexture', PLACES],
    ['VideoFrame', 'importExternalTexture', PLACES],
    ['HTMLCanvasElement', 'copyExternalImageToTexture', ['page']],
    ['HTMLImageElement', 'copyExternalImageToTexture', ['page']],
    ['HTMLVideoElement', 'importExternalTexture', ['page']],
  ] as const)('%s reaches the GPU by %s', async (kind, way, places) => {
    for (const place of places) {
      const seen = await call<Seen>(place, 'picture', kind);
      expect(seen).toMatchObject({ width: 61, height: 43, used: [way] });
      // Bytes are bytes; a canvas stream may be carried in YUV.
      expect(seen.difference).toBeLessThanOrEqual(kind === 'HTMLVideoElement' ? 8 : 0);
      expect(seen.kept).toBe(0);
    }
  });

  it('a photo turned by EXIF stands upright', async () => {
    const canvas = createCanvas(48, 32);
    const c = canvas.getContext('2d');
    const colours = ['#c81e1e', '#1ec81e', '#1e1ec8', '#c8c81e'];
    colours.forEach((colour, i) => {
      c.fillStyle = colour;
      c.fillRect((i % 2) * 24, i < 2 ? 0 : 16, 24, 16);
    });
    const jpeg = canvas.toBuffer('image/jpeg', 100);
    // An APP1 segment that says: turn by 90° clockwise to look at it (orientation 6).
    const exif = Buffer.from(
      'ffe1002245786966000049492a00080000000100120103000100000006000000000000000000',
      'hex',
    );
    exif.writeUInt16BE(exif.length - 2, 2);
    const turned = Buffer.concat([jpeg.subarray(0, 2), exif, jpeg.subarray(2)]);
    server.files.set('/turned.jpg', { type: 'image/jpeg', body: turned });
    const near = (colour: number[]) =>
      colours[
        colour.map((v) => (v > 110 ? 1 : 0)).join('') === '100'
          ? 0
          : colour[0] > 110
            ? 3
            : colour[1] > 110
              ? 1
              : 2
      ];
    for (const how of ['element', 'bitmap']) {
      const seen = await call<{ width: number; height: number; corners: number[][] }>(
        'page',
        'corners',
        '/turned.jpg',
        how,
      );
      expect([seen.width, seen.height]).toEqual([32, 48]);
      // Clockwise: the lower left corner is now the upper left one.
      expect(seen.corners.map(near), how).toEqual([colours[2], colours[0], colours[3], colours[1]]);
    }
  });

  it('a picture wider than a texture is halved', async () => {
    const seen = await call<{
      width: number;
      height: number;
      scale: number;
      limit: number;
      colour: number[];
    }>('worker', 'large');
    expect(seen).toMatchObject({
      width: (seen.limit + 2) / 2,
      height: 2,
      scale: 2,
      colour: [0x20, 0x40, 0x80],
    });
  });

  it('says what is wrong with a source without pixels', async () => {
    const said = await call<Record<string, string>>('page', 'refused');
    expect(said.closed).toMatch(/GpuError: The ImageBitmap has no pixels/);
    expect(said.image).toMatch(/GpuError: The HTMLImageElement has no pixels.*image\.decode/);
    expect(said.video).toMatch(/GpuError: The video has no frame yet/);
  });

  it('weights by URL: progress, checksum, Cache Storage, and what is said when they are wrong', async () => {
    const { state, metadata } = randomMtcnn();
    const body = writeSafetensors(state, metadataToStrings(metadata));
    const sum = createHash('sha256').update(body).digest('hex');
    server.files.set('/w.safetensors', { type: 'application/octet-stream', body });
    interface Loaded {
      net: string;
      tensors: number;
      progress: { done: number; total?: number }[];
      error?: string;
    }
    const load = (place: Place, sha256?: string) => call<Loaded>(place, 'load', '/w.safetensors', sha256);
    const asked = () => server.requests.filter((path) => path === '/w.safetensors').length;

    const first = await load('page', sum);
    expect(first).toMatchObject({ net: 'mtcnn', tensors: state.size });
    expect(first.progress.at(-1)).toEqual({ done: body.length, total: body.length });
    expect(asked()).toBe(1);
    expect(await load('worker', sum.toUpperCase())).toMatchObject({ net: 'mtcnn' });
    expect(asked()).toBe(1);
    // What the cache holds is checked too, and fetched anew where it is damaged.
    expect(await call('page', 'damage')).toBe(1);
    expect(await load('page', sum)).toMatchObject({ net: 'mtcnn' });
    expect(asked()).toBe(2);
    // Without a checksum there is nothing to keep it by.
    expect(await load('page')).toMatchObject({ net: 'mtcnn' });
    expect(asked()).toBe(3);
    expect((await load('page', 'ab'.repeat(32))).error).toMatch(
      /WeightsError: .*its SHA-256 is .*abab.* was expected/,
    );
    server.files.set('/w.safetensors', { type: 'text/html', body: '<!doctype html><title>no</title>' });
    expect((await load('page')).error).toMatch(/WeightsError: \/w\.safetensors: Not a weights file/);
    server.files.delete('/w.safetensors');
    expect((await load('page')).error).toMatch(/the server answered 404/);
    // Chromium logs a failed request by itself.
    errors.splice(0, errors.length, ...errors.filter((e) => !/404/.test(e)));
  });

  it('nothing was complained of on the console', () => expect(errors).toEqual([]));
});
