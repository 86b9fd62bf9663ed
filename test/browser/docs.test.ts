import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCanvas } from '@napi-rs/canvas';
import type { Browser } from 'playwright';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { writeSafetensors } from '../../src/weights/formats/safetensors.js';
import { metadataToStrings } from '../../src/weights/metadata.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../face/helpers.js';
import { executablePath, launch, NO_BROWSER, openPage, root, TestServer } from './harness.js';

let server: TestServer;
let browser: Browser;

beforeAll(async () => {
  if (!executablePath) return;
  server = await TestServer.start();
  const script = 'text/javascript; charset=utf-8';
  server.files.set('/wfr.js', {
    type: script,
    body: readFileSync(join(root, 'dist', 'browser', 'wfr.js'), 'utf8'),
  });
  // The examples as they stand in the text, under the names that they give themselves.
  const text = readFileSync(join(root, 'docs', 'browser.md'), 'utf8');
  for (const [, language, name, body] of text.matchAll(
    /```(html|js)\n(?:<!--|\/\/) example: (\S+)(?: -->)?\n([\s\S]*?)```/g,
  ))
    server.files.set(`/${name}`, { type: language === 'html' ? 'text/html; charset=utf-8' : script, body });
  for (const [name, { state, metadata }] of [
    ['detector', eagerMtcnn()],
    ['recogniser', smallRecogniser()],
  ] as const)
    server.files.set(`/${name}.safetensors`, {
      type: 'application/octet-stream',
      body: writeSafetensors(state, metadataToStrings(metadata)),
    });
  const { width, height, data } = blobs(96, 80);
  const canvas = createCanvas(width, height);
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  image.data.set(data);
  context.putImageData(image, 0, 0);
  server.files.set('/group.png', { type: 'image/png', body: canvas.toBuffer('image/png') });
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
});

describe('the examples of docs/browser.md', () => {
  beforeEach((ctx) => ctx.skip(!executablePath, NO_BROWSER));

  it.each([
    ['page.html', /^[1-9]\d* faces$/],
    ['names.html', /^Ann is known$/],
  ])('%s works as it stands', async (name, wanted) => {
    const { page, context, errors } = await openPage(browser, `${server.origin}/${name}`);
    await page.waitForFunction(() => document.querySelector('#log')?.textContent);
    expect(await page.textContent('#log')).toMatch(wanted);
    expect(errors).toEqual([]);
    await context.close();
  });
});
