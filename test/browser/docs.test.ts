import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Weights } from '../../src/weights/convert.js';
import { writeSafetensors } from '../../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../../src/weights/metadata.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../face/helpers.js';
import { cameraOf, executablePath, launch, NO_BROWSER, openPage, png, root, TestServer } from './harness.js';

const SCRIPT = 'text/javascript; charset=utf-8';
const HTML = 'text/html; charset=utf-8';
const bytesOf = ({ state, metadata }: Weights) =>
  Buffer.from(writeSafetensors(state, metadataToStrings(metadata)));
const RECOGNISER = bytesOf(smallRecogniser());

/** Scripts that stand alone in the text: what the text says is made before, and what is looked at after. */
const AROUND: Record<string, { before?: string; result: string }> = {
  'camera.js': {
    before: `
      import { Facebank, FaceRecognizer, fetchWeights, openGpu } from './wfr.js';
      const [detector, recogniser] = await Promise.all(
        ['./detector.safetensors', './recogniser.safetensors'].map((url) => fetchWeights(url)),
      );
      const recognizer = FaceRecognizer.create(await openGpu(), { detector, recogniser });
      const bank = new Facebank();`,
    result: "faces.length + ' faces, ' + faces[0].embedding.length + ' numbers each'",
  },
  'weights.js': { result: "weights.metadata.net + ': ' + weights.state.size + ' tensors'" },
};

const text = readFileSync(join(root, 'docs', 'browser.md'), 'utf8');
/** The examples as they stand in the text, under the names that they give themselves. */
const examples = [
  ...text.matchAll(/```(html|js)\n(?:<!--|\/\/) example: (\S+)(?: -->)?\n([\s\S]*?)```/g),
].map(([, language, name, body]) => ({ language, name, body }));

let server: TestServer;
let browser: Browser;
let scratch: string;

beforeAll(async () => {
  if (!executablePath) return;
  server = await TestServer.start();
  const serve = (name: string, type: string, body: string | Uint8Array) =>
    server.files.set(`/${name}`, { type, body });
  serve('wfr.js', SCRIPT, readFileSync(join(root, 'dist', 'browser', 'wfr.js'), 'utf8'));
  serve('detector.safetensors', 'application/octet-stream', bytesOf(eagerMtcnn()));
  serve('recogniser.safetensors', 'application/octet-stream', RECOGNISER);
  serve('group.png', 'image/png', png(blobs(96, 80)));
  for (const { language, name, body } of examples) {
    const around = AROUND[name];
    if (language === 'html') serve(name, HTML, body);
    else if (!around) serve(name, SCRIPT, body);
    else {
      const log = `document.querySelector('#log').textContent = ${around.result};`;
      const script = `<script type="module">${around.before ?? ''}\n${body}\n${log}</script>`;
      const head = '<!doctype html><link rel="icon" href="data:,"><video muted playsinline></video>';
      serve(name.replace('.js', '.html'), HTML, `${head}<pre id="log"></pre>${script}`);
    }
  }
  scratch = mkdtempSync(join(tmpdir(), 'wfr-docs-'));
  browser = await launch(cameraOf(blobs(96, 80), join(scratch, 'camera.y4m')));
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
  if (scratch) rmSync(scratch, { recursive: true, force: true });
});

it('the examples of docs/browser.md have names, so that every one is run below', () => {
  // worker.js is run by names.html.
  const names = ['page.html', 'worker.js', 'names.html', 'camera.js', 'weights.js'];
  expect(examples.map((e) => e.name)).toEqual(names);
  expect(text.match(/^```(html|js)$/gm)).toHaveLength(names.length);
});

describe('the examples of docs/browser.md', () => {
  beforeEach((ctx) => ctx.skip(!executablePath, NO_BROWSER));

  it.each([
    ['page.html', /^[1-9]\d* faces$/],
    ['names.html', /^Ann is known$/],
    ['camera.html', /^[1-9]\d* faces, 12 numbers each$/],
    ['weights.html', /^mobilefacenet: \d+ tensors$/],
  ])('%s works as it stands', async (name, wanted) => {
    const { page, context, errors } = await openPage(browser, 'about:blank');
    // The other site of weights.js, and the checksum that the text leaves out.
    await context.route('https://example.org/recogniser.safetensors', (route) =>
      route.fulfill({ body: RECOGNISER, headers: { 'access-control-allow-origin': '*' } }),
    );
    await context.route('**/weights.html', async (route) => {
      const response = await route.fetch();
      const sum = createHash('sha256').update(RECOGNISER).digest('hex');
      await route.fulfill({ response, body: (await response.text()).replace('3a7b…', sum) });
    });
    await page.goto(`${server.origin}/${name}`);
    await page.waitForFunction(() => document.querySelector('#log')?.textContent);
    expect(await page.textContent('#log')).toMatch(wanted);
    expect(errors).toEqual([]);
    await context.close();
  });
});
