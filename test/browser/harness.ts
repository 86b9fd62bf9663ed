import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { createCanvas } from '@napi-rs/canvas';
import { build } from 'esbuild';
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Page,
} from 'playwright';
import { CHROMIUM_FLAGS, findChromium } from '../../scripts/lib/chromium.mjs';
import type { Picture } from '../../src/media/picture.js';

export const root = join(import.meta.dirname, '..', '..');
export const executablePath = findChromium();
/** In place of a browser test where there is no browser; CI installs one. */
export const NO_BROWSER = 'no Chromium: install one, or name it in WFR_CHROMIUM';

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
  '.jpg': 'image/jpeg',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
};

/** Serves folders, and bytes that a test makes, from a free port of localhost. */
export class TestServer {
  readonly files = new Map<string, { type: string; body: Uint8Array | string }>();
  /** Paths asked for, in order. */
  readonly requests: string[] = [];
  readonly #server: Server;

  private constructor(folders: Readonly<Record<string, string>>) {
    this.#server = createServer(async (request, response) => {
      const path = decodeURIComponent(new URL(request.url!, 'http://localhost').pathname);
      this.requests.push(path);
      try {
        const made = this.files.get(path);
        const [prefix, folder] = Object.entries(folders).find(([p]) => path.startsWith(p)) ?? [];
        const file = join(folder ?? '', normalize(path.slice(prefix?.length ?? 0)) || 'index.html');
        const body =
          made?.body ??
          (folder ? await readFile(path.endsWith('/') ? join(file, 'index.html') : file) : undefined);
        if (body === undefined) throw new Error('no such file');
        response.setHeader('content-type', made?.type ?? TYPES[extname(file)] ?? 'application/octet-stream');
        response.end(body);
      } catch {
        response.statusCode = 404;
        response.end('not found');
      }
    });
  }

  static async start(folders: Readonly<Record<string, string>> = {}): Promise<TestServer> {
    const server = new TestServer(folders);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get origin(): string {
    return `http://localhost:${(this.#server.address() as { port: number }).port}`;
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

export function launch(flags: readonly string[] = []): Promise<Browser> {
  return chromium.launch({ executablePath, headless: true, args: [...CHROMIUM_FLAGS, ...flags] });
}

/** Flags for a camera that shows one picture in grey for ever, and for leave to use it; `file` keeps the video. */
export function cameraOf({ width, height, data }: Picture, file: string): string[] {
  const luma = Buffer.alloc(width * height);
  for (let i = 0; i < luma.length; i++)
    luma[i] = 16 + (65.5 * data[4 * i] + 128.6 * data[4 * i + 1] + 25 * data[4 * i + 2]) / 256;
  const frame = [Buffer.from('FRAME\n'), luma, Buffer.alloc((width * height) / 2, 128)];
  const head = Buffer.from(`YUV4MPEG2 W${width} H${height} F30:1 Ip A1:1 C420jpeg\n`);
  writeFileSync(file, Buffer.concat([head, ...frame, ...frame]));
  return [
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    `--use-file-for-fake-video-capture=${file}`,
  ];
}

/** A page whose console errors, uncaught errors and failed requests are collected: tests end with none. */
export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; context: BrowserContext; errors: string[] }> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const errors: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || /validation|wgsl/i.test(message.text())) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('requestfailed', (request) => errors.push(`${request.url()}: ${request.failure()?.errorText}`));
  await page.goto(url);
  return { page, context, errors };
}

/** The bytes of a PNG file. */
export function png({ width, height, data }: Picture): Buffer {
  const canvas = createCanvas(width, height);
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  image.data.set(data);
  context.putImageData(image, 0, 0);
  return canvas.toBuffer('image/png');
}

/** The tests' own in-page code as one module that pages and workers load. */
export async function bundleInPage(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'in_page', 'entry.ts')],
    bundle: true,
    format: 'esm',
    platform: 'browser',
    external: ['*.node.js'],
    write: false,
  });
  return outputFiles[0].text;
}
