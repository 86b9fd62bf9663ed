/**
 * The Photo and Camera pages in headless Chromium: what the first result takes after a cold load, stage by stage,
 * and whether memory stays flat over many frames of a camera.
 *
 *   npm run build:web && npx tsx bench/browser.ts [--frames 1000]
 *
 * MTCNN and a small recogniser with random weights that see faces in every frame, so that every stage runs. The
 * numbers are of the adapter that Chromium has: without a graphics card SwiftShader, ten times slower than the
 * software adapter of Node.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeSafetensors } from '../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../src/weights/metadata.js';
import { launch, openPage, root, TestServer } from '../test/browser/harness.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../test/face/helpers.js';

const frames = Number(process.argv[process.argv.indexOf('--frames') + 1]) || 1000;
const [width, height] = [64, 64];
const folder = mkdtempSync(join(tmpdir(), 'wfr-bench-'));
const clip = join(folder, 'camera.y4m');
const { data } = blobs(width, height);
const luma = Uint8Array.from({ length: width * height }, (_, i) => 16 + (220 * data[4 * i + 1]) / 256);
const frame = [Buffer.from('FRAME\n'), luma, new Uint8Array((width * height) / 2).fill(128)];
writeFileSync(
  clip,
  Buffer.concat([Buffer.from(`YUV4MPEG2 W${width} H${height} F30:1 Ip A1:1 C420jpeg\n`), ...frame, ...frame]),
);

/** Megabytes resident of every process below this one: the browser's. */
function resident(): number {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,rss='], { encoding: 'utf8' }).trim().split('\n');
  const processes = lines.map((line) => line.trim().split(/\s+/).map(Number));
  const below = (parent: number): number =>
    processes.filter(([, p]) => p === parent).reduce((sum, [pid, , rss]) => sum + rss + below(pid), 0);
  return below(process.pid) / 1000;
}

const server = await TestServer.start({ '/': join(root, 'demo', 'out') });
const index = [
  { role: 'detector', weights: eagerMtcnn() },
  { role: 'recogniser', weights: smallRecogniser() },
].map(({ role, weights: { state, metadata } }) => {
  const body = writeSafetensors(state, metadataToStrings(metadata));
  const url = `weights/${role}.safetensors`;
  server.files.set(`/${url}`, { type: 'application/octet-stream', body });
  const sha256 = createHash('sha256').update(body).digest('hex');
  return { role, title: role, files: [{ url, sha256, bytes: body.length }] };
});
server.files.set('/weights/index.json', { type: 'application/json', body: JSON.stringify(index) });
const browser = await launch([
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  `--use-file-for-fake-video-capture=${clip}`,
]);
try {
  const { page } = await openPage(browser, `${server.origin}/camera.html`);
  await page.locator('body.ready').waitFor();
  const cold = await page.evaluate(() => document.body.dataset.cold);
  console.log(
    JSON.stringify({ adapter: await page.textContent('#adapter'), cold: JSON.parse(cold ?? '{}') }),
  );
  await page.locator('#min-face').fill('60');
  await page.click('#start');
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const at = async (n: number) => {
    await page.waitForFunction((wanted) => Number(document.body.dataset.frames) >= wanted, n, {
      timeout: 3_600_000,
    });
    const seen: DOMStringMap = await page.evaluate(() => ({ ...document.body.dataset }));
    const { metrics } = await session.send('Performance.getMetrics');
    const heap = metrics.find((m) => m.name === 'JSHeapUsedSize')?.value ?? 0;
    console.log(
      JSON.stringify({
        frames: Number(seen.frames),
        gpuBytes: Number(seen.gpuBytes),
        pageHeapMB: Number((heap / 1e6).toFixed(1)),
        residentMB: Math.round(resident()),
        firstFrame: seen.first && JSON.parse(seen.first),
        fps: await page.textContent('#fps'),
      }),
    );
  };
  for (const n of [1, 10, 100, 250, 500, 750, 1000].filter((k) => k <= frames)) await at(n);
} finally {
  await browser.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
}
