import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ALL_FORMATS, BufferSource, EncodedPacketSink, Input } from 'mediabunny';
import type { Browser, Page } from 'playwright';
import { build } from 'vite';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Weights } from '../../src/weights/convert.js';
import { writeSafetensors } from '../../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../../src/weights/metadata.js';
import { readWeights } from '../../src/weights/read.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../face/helpers.js';
import {
  bundleInPage,
  cameraOf,
  executablePath,
  launch,
  NO_BROWSER,
  openPage,
  png,
  root,
  TestServer,
} from './harness.js';

const OUT = join(root, 'demo', 'out');
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

/** Where a person looks at the pages: WFR_SCREENSHOTS=FOLDER keeps pictures of them. */
const screenshots = process.env.WFR_SCREENSHOTS;
const shoot = async (page: Page, name: string) => {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
};

let server: TestServer;
let browser: Browser;
let scratch: string;

const safetensors = ({ state, metadata }: Weights) =>
  Buffer.from(writeSafetensors(state, metadataToStrings(metadata)));
const asFile = (name: string, buffer: Buffer, mimeType = 'application/octet-stream') => ({
  name,
  mimeType,
  buffer,
});
/** Of two arrays, as a share of the second's length. */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.hypot(...Array.from(a, (v, i) => v - b[i])) / Math.hypot(...Array.from(b));
const DETECTOR = asFile('detector.safetensors', safetensors(eagerMtcnn()));
const RECOGNISER = asFile('recogniser.safetensors', safetensors(smallRecogniser()));

beforeAll(async () => {
  if (!executablePath) return;
  await build({ configFile: join(root, 'demo', 'vite.config.ts'), logLevel: 'warn' });
  server = await TestServer.start({ '/': OUT });
  // Whatever lies in the built folder: these tests bring their weights.
  server.files.set('/weights/index.json', { type: 'application/json', body: '[]' });
  scratch = mkdtempSync(join(tmpdir(), 'wfr-pages-'));
  browser = await launch(cameraOf(blobs(96, 80), join(scratch, 'camera.y4m')));
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
  if (scratch) rmSync(scratch, { recursive: true, force: true });
});

const status = (page: Page, text: RegExp) => page.locator('#status').filter({ hasText: text }).waitFor();

async function loadWeights(page: Page, ...files: (typeof DETECTOR)[]): Promise<void> {
  await page.locator('#missing').waitFor();
  await page.setInputFiles('#weights-files', files);
  await page.locator('body.ready').waitFor();
  // The page is ready with a detector alone; what it says of a recogniser must not come in between later words.
  if (files.includes(RECOGNISER)) await page.locator('#recogniser', { hasText: 'mobilefacenet' }).waitFor();
}

describe('the demo pages', () => {
  beforeEach((ctx) => ctx.skip(!executablePath, NO_BROWSER));

  it.each(['worker', 'page'])(
    'Photo, computing in a %s: drop, name, keep, export and import',
    async (thread) => {
      const { page, context, errors } = await openPage(
        browser,
        `${server.origin}/index.html?thread=${thread}`,
      );
      await loadWeights(page, DETECTOR, RECOGNISER);
      await page.locator('#min-face').fill('60');
      // A real drop, as from the desktop.
      const bytes = [...png(blobs(96, 80))];
      const transfer = await page.evaluateHandle((data) => {
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array(data)], 'crowd.png', { type: 'image/png' }));
        return dropped;
      }, bytes);
      await page.dispatchEvent('#stage', 'drop', { dataTransfer: transfer });
      await status(page, /face.* in crowd\.png/);
      const faces = await page.locator('#faces li').count();
      expect(faces).toBeGreaterThan(0);
      expect(await page.locator('#canvas').getAttribute('aria-label')).toMatch(
        /crowd\.png: \d+ faces: unknown/,
      );

      // By keyboard: type a name, Enter keeps it, and the same face is known from then on.
      await page.locator('#faces li input').first().focus();
      await page.keyboard.type('Łucja 美玲');
      await page.keyboard.press('Enter');
      await page.locator('#people li', { hasText: 'Łucja 美玲' }).waitFor();
      expect(await page.locator('#faces li small').first().textContent()).toMatch(/^known, 1\.00/);
      if (thread === 'worker') await shoot(page, 'test-photo');

      // It outlives the page, and travels as a file.
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
      const zip = readFileSync((await download.path())!);
      await page.reload();
      await page.locator('#people li', { hasText: 'Łucja 美玲' }).waitFor();
      await page.click('#people li button');
      await page.locator('#no-people').waitFor();
      await page.setInputFiles('#bank-file', asFile('bank.zip', zip, 'application/zip'));
      await page.locator('#people li', { hasText: 'Łucja 美玲' }).waitFor();
      await page.setInputFiles('#bank-file', asFile('other.zip', Buffer.from('PK no'), 'application/zip'));
      await status(page, /other\.zip: /);
      expect(errors).toEqual([]);
      await context.close();
    },
  );

  it.each(['worker', 'page'])(
    'Camera, computing in a %s: frames from the camera, times, and a stop',
    async (thread) => {
      const { page, context, errors } = await openPage(
        browser,
        `${server.origin}/camera.html?thread=${thread}`,
      );
      await loadWeights(page, DETECTOR, RECOGNISER);
      await page.locator('#min-face').fill('60');
      await page.click('#start');
      await page.waitForFunction(() => Number(document.body.dataset.frames) >= 6);
      expect(Number(await page.textContent('#fps'))).toBeGreaterThan(0);
      expect(await page.locator('#times td:first-child').allTextContents()).toEqual([
        'grab',
        'upload',
        'detect',
        'embed',
        'name',
        'draw',
      ]);
      expect(await page.locator('#overlay').getAttribute('aria-label')).toMatch(/unknown/);
      // Memory is what it was after the first frames.
      const bytes = await page.evaluate(() => document.body.dataset.gpuBytes);
      const frames = await page.evaluate(() => Number(document.body.dataset.frames));
      await page.waitForFunction((n) => Number(document.body.dataset.frames) >= n + 5, frames);
      expect(await page.evaluate(() => document.body.dataset.gpuBytes)).toBe(bytes);
      await page.click('#stop');
      await status(page, /Stopped/);
      expect(errors).toEqual([]);
      await context.close();
    },
  );

  it('Camera with a video file: plays it, and saves it with names through WebCodecs', async () => {
    const { page, context, errors } = await openPage(browser, `${server.origin}/camera.html`);
    await loadWeights(page, DETECTOR, RECOGNISER);
    await page.locator('#min-face').fill('60');
    await page.evaluate(
      await bundleInPage().then(
        (code) =>
          `import(URL.createObjectURL(new Blob([${JSON.stringify(code)}], { type: 'text/javascript' })))`,
      ),
    );
    const recorded = (await page.evaluate("call('page', 'clip', [])")) as number[];
    const video = asFile('clip.webm', Buffer.from(recorded), 'video/webm');
    // A busy browser may have decoded a frame that cannot be taken yet: it is asked again.
    await page.evaluate(() => {
      const own = VideoFrame;
      globalThis.VideoFrame = new Proxy(own, {
        construct() {
          globalThis.VideoFrame = own;
          document.body.dataset.refused = 'once';
          throw new DOMException('Invalid source state', 'InvalidStateError');
        },
      });
    });
    await page.setInputFiles('#videos', video);
    await status(page, /Watching clip\.webm|The video is over/);
    await page.waitForFunction(() => Number(document.body.dataset.frames) >= 1);
    expect(await page.getAttribute('body', 'data-refused')).toBe('once');
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#annotate')]);
    const frames = async (bytes: Buffer) => {
      const input = new Input({ source: new BufferSource(bytes), formats: ALL_FORMATS });
      const track = (await input.getPrimaryVideoTrack())!;
      const times: number[] = [];
      for await (const packet of new EncodedPacketSink(track).packets()) times.push(packet.timestamp);
      return { times, width: track.displayWidth, height: track.displayHeight };
    };
    const named = await frames(readFileSync((await download.path())!));
    expect(named).toEqual(await frames(video.buffer));
    expect(named.times).toHaveLength(8);
    expect(errors).toEqual([]);
    await context.close();
  });

  it.each([
    ['worker', 'small'],
    ['page', 'small'],
    ['worker', 'loaded'],
  ])(
    'Train, computing in a %s, the %s net: ten steps, falling loss, weights that wfr reads',
    async (thread, net) => {
      const { page, context, errors } = await openPage(
        browser,
        `${server.origin}/train.html?thread=${thread}`,
      );
      await status(page, /Ready/);
      if (net === 'loaded') {
        await page.setInputFiles('#weights-files', RECOGNISER);
        await page.locator('#recogniser', { hasText: 'mobilefacenet' }).waitFor();
      }
      // Three people whose faces are plain colours with some noise: easy to tell apart.
      const people = join(scratch, `people-${thread}-${net}`);
      for (const [p, person] of ['Ann', 'Bo', 'Cy'].entries()) {
        mkdirSync(join(people, person), { recursive: true });
        for (let k = 0; k < 4; k++) {
          const picture = blobs(48, 48, 1 + p + k / 50);
          for (let i = 0; i < picture.data.length; i += 4) picture.data[i + p] = 235;
          writeFileSync(join(people, person, `${k}.png`), png(picture));
        }
      }
      await page.setInputFiles('#folder', people);
      await status(page, /Ready to train/);
      expect(await page.textContent('#data')).toBe('12 pictures of 3 people.');
      expect(await page.isChecked('#aligned')).toBe(true);
      await page.selectOption('#net', net);
      await page.fill('#size', '32');
      await page.fill('#batch', '6');
      await page.fill('#steps', '10');
      await page.check('#mirror-only');
      await page.click('#start');
      await status(page, /Trained for 10 steps/);
      const losses = await page.evaluate(() => JSON.parse(document.body.dataset.losses!) as number[]);
      expect(losses).toHaveLength(10);
      const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
      expect(mean(losses.slice(-3))).toBeLessThan(0.8 * mean(losses.slice(0, 3)));
      expect(await page.locator('#map').getAttribute('aria-label')).toBe(
        'Embeddings of 12 pictures of 3 people',
      );
      await shoot(page, `test-train-${thread}-${net}`);
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
      const { state, metadata } = readWeights([readFileSync((await download.path())!)]);
      expect(metadata.net).toBe('mobilefacenet');
      if (net === 'loaded') {
        // The same net, moved on from where it was: a fresh one would be about √2 away.
        const before = smallRecogniser();
        expect(metadata.config).toEqual(before.metadata.config);
        expect([...state.keys()].sort()).toEqual([...before.state.keys()].sort());
        const name = 'stem.conv.weight';
        const moved = distance(state.get(name)!.data, before.state.get(name)!.data);
        expect(moved).toBeGreaterThan(0);
        expect(moved).toBeLessThan(0.5);
      }
      expect([...state.values()].every((t) => t.data.every(Number.isFinite))).toBe(true);
      expect([...state.keys()].some((name) => name.startsWith('training.'))).toBe(false);
      expect(errors).toEqual([]);
      await context.close();
    },
  );

  it('fit a phone: nothing is wider than the screen, and buttons are large enough for a finger', async () => {
    for (const name of ['index', 'camera', 'train']) {
      const { page, context, errors } = await openPage(browser, `${server.origin}/${name}.html`, PHONE);
      await status(page, /Waiting|Ready/);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
      const heights = await page
        .locator('main button:visible')
        .evaluateAll((all) => all.map((b) => b.getBoundingClientRect().height));
      for (const height of heights) expect(height).toBeGreaterThanOrEqual(34);
      await shoot(page, `phone-${name}`);
      expect(errors).toEqual([]);
      await context.close();
    }
  });

  it('load the weights that are served with them', async () => {
    const { buffer } = DETECTOR;
    const sha256 = createHash('sha256').update(buffer).digest('hex');
    const file = { url: 'weights/detector.safetensors', sha256, bytes: buffer.length };
    const index = [{ role: 'detector', title: 'MTCNN', files: [file] }];
    server.files.set('/weights/detector.safetensors', { type: 'application/octet-stream', body: buffer });
    server.files.set('/weights/index.json', { type: 'application/json', body: JSON.stringify(index) });
    const { page, context, errors } = await openPage(browser, `${server.origin}/index.html`);
    await page.locator('body.ready').waitFor();
    expect(await page.textContent('#detector')).toBe('mtcnn');
    server.files.set('/weights/index.json', { type: 'application/json', body: '[]' });
    expect(errors).toEqual([]);
    await context.close();
  });

  it('say which browsers have WebGPU where there is none', async () => {
    const context = await browser.newContext();
    await context.addInitScript(() =>
      Object.defineProperty(Navigator.prototype, 'gpu', { value: undefined }),
    );
    const page = await context.newPage();
    await page.goto(`${server.origin}/index.html?thread=page`);
    await page.locator('#no-webgpu').waitFor();
    expect(await page.textContent('#no-webgpu-reason')).toMatch(
      /Chrome and Edge 113.*Safari 26.*Firefox 141.*enable-unsafe-webgpu/,
    );
    await context.close();
  });
});

const photo = join(root, '..', 'shared', 'data', 'photos', 'compreface', '000_5.jpg');
const weights = process.env.WFR_WEIGHTS ?? '';

describe('with public weights', () => {
  beforeEach((ctx) => {
    ctx.skip(!executablePath, NO_BROWSER);
    ctx.skip(!existsSync(join(weights, 'facenet_pytorch_mtcnn')), 'no public MTCNN: set WFR_WEIGHTS');
    ctx.skip(!existsSync(photo), 'no photos beside the checkout');
  });

  it('the faces of a photo are found', async () => {
    const { page, context, errors } = await openPage(browser, `${server.origin}/index.html`, {
      viewport: { width: 1280, height: 860 },
    });
    const trio = join(weights, 'facenet_pytorch_mtcnn');
    await page.locator('#missing').waitFor();
    await page.setInputFiles(
      '#weights-files',
      readdirSync(trio)
        .filter((f) => f.endsWith('.pt'))
        .map((f) => join(trio, f)),
    );
    await page.locator('body.ready').waitFor();
    await page.setInputFiles('#pictures', photo);
    await status(page, /5 faces in 000_5\.jpg/);
    await shoot(page, 'desktop-photo');
    expect(errors).toEqual([]);
    await context.close();
  });
});
