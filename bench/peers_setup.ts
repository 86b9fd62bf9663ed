/** What other engines need before they can be measured: their packages, and the globals of a page. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { nodeWebGpu } from '../src/gpu/adapter.node.js';

/** The engines are no dependency of wfr: they are installed into bench/peers when one of them is not there yet. */
export function installPeers(): void {
  const folder = path.join(import.meta.dirname, 'peers');
  const { dependencies } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  if (Object.keys(dependencies).every((name) => existsSync(path.join(folder, 'node_modules', name)))) return;
  execFileSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: folder,
    stdio: ['ignore', 2, 2],
  });
}

/** Gives this process navigator.gpu, which the engines look for and Node lacks (Node 20 has no navigator at all). */
export async function presentGpu(): Promise<void> {
  const gpuEntry = await nodeWebGpu([]);
  if (!globalThis.navigator)
    Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true, writable: true });
  const page = globalThis.navigator as { userAgent?: string };
  if (!page.userAgent) Object.defineProperty(page, 'userAgent', { value: 'Node.js', configurable: true });
  Object.defineProperty(page, 'gpu', { value: gpuEntry, configurable: true });
}
