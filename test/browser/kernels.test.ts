import { join } from 'node:path';
import { build } from 'esbuild';
import type { Browser, Page } from 'playwright';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { executablePath, launch, NO_BROWSER, openPage, TestServer } from './harness.js';
import type { Outcome, Suite } from './in_worker/suites.js';

const HERE = join(import.meta.dirname, 'in_worker');

let server: TestServer;
let browser: Browser;
let page: Page;
let errors: string[];

beforeAll(async () => {
  if (!executablePath) return;
  const { outputFiles } = await build({
    entryPoints: [join(HERE, 'suites.ts')],
    alias: { vitest: join(HERE, 'vitest.ts') },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    external: ['*.node.js'],
    write: false,
  });
  server = await TestServer.start();
  server.files.set('/suites.js', { type: 'text/javascript', body: outputFiles[0].text });
  server.files.set('/', {
    type: 'text/html; charset=utf-8',
    body: '<!doctype html><link rel="icon" href="data:,">',
  });
  browser = await launch();
  ({ page, errors } = await openPage(browser, server.origin));
});

// A worker ends with its page: one that takes too long does not hold up the next.
afterEach(async () => void (await page?.reload()));

afterAll(async () => {
  await browser?.close();
  await server?.close();
});

// In a page the same files run as the project "chromium" (vitest.config.ts).
describe('in a dedicated worker of Chromium', () => {
  beforeEach((ctx) => ctx.skip(!executablePath, NO_BROWSER));

  it.each<Suite>(['forward', 'conv2d', 'backward', 'conv2d_grad', 'losses'])(
    'kernels/%s.test.ts passes',
    async (suite) => {
      const outcome = await page.evaluate(
        (name) =>
          new Promise<Outcome>((resolve, reject) => {
            const worker = new Worker('/suites.js', { type: 'module' });
            worker.onerror = ({ message }) => reject(new Error(message));
            worker.onmessage = ({ data }) => resolve(data);
            worker.postMessage(name);
          }),
        suite,
      );
      expect(outcome.failed).toEqual([]);
      expect(outcome.passed).toBeGreaterThan(0);
      expect(outcome.place).toBe('DedicatedWorkerGlobalScope');
    },
  );

  it('nothing was complained of on the console', () => expect(errors).toEqual([]));
});
