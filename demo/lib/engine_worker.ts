/** The engine in a worker of its own: the page stays smooth while it computes. */
import { Engine, type EngineEvent } from './engine.js';
import type { Answer, Call } from './remote.js';

const engine = new Engine((event: EngineEvent) => postMessage({ event } satisfies Answer));

addEventListener('message', async ({ data }: MessageEvent<Call>) => {
  const { id, method, args } = data;
  try {
    const run = engine[method] as (...args: unknown[]) => Promise<unknown>;
    postMessage({ id, value: await run.apply(engine, args) } satisfies Answer);
  } catch (error) {
    postMessage({ id, error: (error as Error).message } satisfies Answer);
  }
});
