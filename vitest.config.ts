import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { playwright } from '@vitest/browser-playwright';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';
import { CHROMIUM_FLAGS, findChromium } from './scripts/lib/chromium.mjs';

// Where there is no graphics card the adapter is the processor, and every worker's kernels use all its cores:
// two workers let one prepare while the other computes, more would only get into each other's way.
const workers = Math.max(2, Math.min(4, Math.floor(availableParallelism() / 2)));

// Public weights beside the checkout, where there are any; tests that need them say so and skip without.
const shared = join(import.meta.dirname, '..', 'shared', 'data', 'weights');
const weights = process.env.WFR_WEIGHTS ?? (existsSync(shared) ? shared : undefined);

// The browser's software adapter is ten times slower than Node's: one page at a time, after everything else, and
// only in `npm test` (which sets the variable) or when asked for.
const inBrowser = process.env.WFR_TEST_BROWSER === '1';
const chromium = inBrowser ? findChromium() : undefined;
if (inBrowser && !chromium) console.warn('No Chromium was found: the kernels are not tested in a browser.');

const node: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    name: 'node',
    include: ['test/**/*.test.ts'],
    exclude: ['test/browser/**'],
    sequence: { groupOrder: 0 },
  },
};

/** Pages and the built library, driven from Node. */
const pages: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    name: 'pages',
    include: ['test/browser/**/*.test.ts'],
    maxWorkers: 1,
    testTimeout: 180_000,
    hookTimeout: 180_000,
    sequence: { groupOrder: 1 },
  },
};

/** The same files as in Node, run inside the browser. */
const kernels: TestProjectInlineConfiguration = {
  extends: true,
  test: {
    name: 'chromium',
    include: ['test/kernels/**/*.test.ts'],
    testTimeout: 180_000,
    fileParallelism: false,
    sequence: { groupOrder: 2 },
    browser: {
      enabled: true,
      headless: true,
      ui: false,
      screenshotFailures: false,
      provider: playwright({ launchOptions: { executablePath: chromium, args: CHROMIUM_FLAGS } }),
      instances: [{ browser: 'chromium' }],
    },
  },
};

export default defineConfig({
  test: {
    // Processes, not threads: Dawn's binding does not support worker threads, and a crash stays in one file.
    pool: 'forks',
    maxWorkers: workers,
    env: weights ? { WFR_WEIGHTS: weights } : {},
    // A software adapter compiles the largest kernels for seconds each; on a busy machine that adds up.
    testTimeout: 180_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    reporters: ['./test/skips.reporter.ts', 'default'],
    projects: [node, ...(inBrowser ? [pages] : []), ...(chromium ? [kernels] : [])],
  },
});
