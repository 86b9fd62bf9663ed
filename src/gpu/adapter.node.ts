import { spacePolls } from './polling.node.js';

/** Opens Dawn's WebGPU in Node. The returned object must stay referenced as long as any device lives. */
export async function nodeWebGpu(flags: readonly string[]): Promise<GPU> {
  const { create, globals } = await import('webgpu');
  // GPUBufferUsage and friends; a page has them from the browser.
  for (const [key, value] of Object.entries(globals)) {
    if (!(key in globalThis))
      Object.defineProperty(globalThis, key, { value, configurable: true, writable: true });
  }
  spacePolls();
  return create([...flags]);
}
