/**
 * The Camera page in headless Chromium: what the first result takes after a cold load, stage by stage, with the
 * weights that `npm run build:web` put beside the pages; and whether memory stays flat over many frames, with small
 * random weights that see a face in every frame.
 *
 *   npm run build:web && npx tsx bench/browser.ts [--frames 1000] [--no-cold]
 *
 * One line of JSON for every measurement. The numbers are of the adapter that Chromium has: without a graphics card
 * SwiftShader, ten times slower than the software adapter of Node.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCanvas, loadImage } from '@napi-rs/canvas';
import type { Page } from 'playwright';
import type { Picture } from '../src/media/picture.js';
import { writeSafetensors } from '../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../src/weights/metadata.js';
import { cameraOf, launch, openPage, root, TestServer } from '../test/browser/harness.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../test/face/helpers.js';
import { emit } from './shared.js';

const OUT = join(root, 'demo', 'out');
const HOUR = 3_600_000;
const wanted = process.argv.indexOf('--frames');
const frames = wanted < 0 ? 1000 : Number(process.argv[wanted + 1]);
const folder = mkdtempSync(join(tmpdir(), 'wfr-bench-'));

/** A browser whose camera shows one picture. */
const withCamera = (picture: Picture) =>
  // Memory is also read after collections.
  launch([...cameraOf(picture, join(folder, `${picture.width}.y4m`)), '--js-flags=--expose-gc']);

/** Waits until the page has looked at n frames. @returns what it tells of itself. */
async function at(page: Page, n: number): Promise<DOMStringMap> {
  await page.waitForFunction((least) => Number(document.body.dataset.frames) >= least, n, { timeout: HOUR });
  return page.evaluate(() => ({ ...document.body.dataset }));
}

/** A group photo's corner with one face, at the size of a small camera. */
async function portrait(): Promise<Picture> {
  const photo = join(root, 'node_modules', '@vladmandic', 'face-api', 'demo', 'sample1.jpg');
  const canvas = createCanvas(320, 240);
  const context = canvas.getContext('2d');
  context.drawImage(await loadImage(photo), 1270, 70, 640, 480, 0, 0, 320, 240);
  return context.getImageData(0, 0, 320, 240);
}

async function coldLoad(): Promise<void> {
  const server = await TestServer.start({ '/': OUT });
  const browser = await withCamera(await portrait());
  try {
    const { page } = await openPage(browser, `${server.origin}/camera.html`);
    page.setDefaultTimeout(HOUR);
    // A second visit finds the weights in Cache Storage, and what else the browser has kept.
    for (const visit of [1, 2]) {
      if (visit > 1) await page.reload();
      await page.locator('body.ready').waitFor();
      await page.click('#start');
      const { cold, first } = await at(page, 1);
      await at(page, 11);
      const later = Object.fromEntries(
        await page
          .locator('#times tr')
          .evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent))),
      );
      const found = await page.locator('#seen li').count();
      const nets = await page.locator('#detector, #recogniser').allTextContents();
      emit({ visit, nets, found, cold: JSON.parse(cold!), first: JSON.parse(first!), later });
    }
  } finally {
    await browser.close();
    await server.close();
  }
}

/** Megabytes resident of the browser's processes, by their kind. What they share counts in each. */
function resident(): Record<string, number> {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,rss=,args='], { encoding: 'utf8' }).trim().split('\n');
  const processes = lines.map((line) => line.trim().split(/\s+/));
  const sums: Record<string, number> = {};
  const add = (parent: string): void => {
    for (const [pid, , rss, ...args] of processes.filter(([, p]) => p === parent)) {
      const kind = args.find((a) => a.startsWith('--type='))?.slice(7) ?? 'other';
      sums[kind] = Math.round((sums[kind] ?? 0) + Number(rss) / 1000);
      add(pid);
    }
  };
  add(String(process.pid));
  return sums;
}

async function memory(): Promise<void> {
  const server = await TestServer.start({ '/': OUT });
  const index = Object.entries({ detector: eagerMtcnn(), recogniser: smallRecogniser() }).map(
    ([role, { state, metadata }]) => {
      const body = writeSafetensors(state, metadataToStrings(metadata));
      const url = `weights/${role}.safetensors`;
      server.files.set(`/${url}`, { type: 'application/octet-stream', body });
      const sha256 = createHash('sha256').update(body).digest('hex');
      return { role, title: role, files: [{ url, sha256, bytes: body.length }] };
    },
  );
  server.files.set('/weights/index.json', { type: 'application/json', body: JSON.stringify(index) });
  const browser = await withCamera(blobs(64, 64));
  try {
    const { page } = await openPage(browser, `${server.origin}/camera.html`);
    await page.locator('#recogniser', { hasText: 'mobilefacenet' }).waitFor();
    await page.locator('#min-face').fill('60');
    await page.click('#start');
    const session = await page.context().newCDPSession(page);
    await session.send('Performance.enable');
    const collect = () => (globalThis as unknown as { gc(): void }).gc();
    const show = async (n: number, collected: boolean) => {
      const seen = await at(page, n);
      if (collected) {
        await page.evaluate(collect);
        for (const worker of page.workers()) await worker.evaluate(collect);
        // The GPU process is told by and by, and its allocator gives pages back a little later.
        await new Promise((resolve) => setTimeout(resolve, 5000));
      }
      const { metrics } = await session.send('Performance.getMetrics');
      const heap = metrics.find((m) => m.name === 'JSHeapUsedSize')?.value ?? 0;
      emit({
        frames: Number(seen.frames),
        collected,
        gpuBytes: Number(seen.gpuBytes),
        pageHeapMB: Number((heap / 1e6).toFixed(1)),
        residentMB: resident(),
      });
    };
    await show(1, true);
    for (const share of [0.25, 0.5, 0.75, 1]) await show(Math.ceil(share * frames), false);
    await show(frames, true);
    await show(2 * frames, true);
  } finally {
    await browser.close();
    await server.close();
  }
}

try {
  if (!existsSync(join(OUT, 'weights', 'index.json')))
    throw new Error('The pages have no weights: npm run build:web puts them there.');
  if (!process.argv.includes('--no-cold')) await coldLoad();
  if (frames > 0) await memory();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
