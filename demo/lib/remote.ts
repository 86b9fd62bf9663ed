import { Engine, type EngineEvent } from './engine.js';

type Method = 'open' | 'loadUrls' | 'loadFiles' | 'recognise' | 'train' | 'stopTraining';
export type RemoteEngine = Pick<Engine, Method>;

export interface Call {
  id: number;
  method: Method;
  args: unknown[];
}

export type Answer = { event: EngineEvent } | { id: number; value: unknown } | { id: number; error: string };

/**
 * The engine in a worker, or in the page itself where the address says `?thread=page`. Bitmaps and frames are handed
 * over, not copied.
 */
export function startEngine(onEvent: (event: EngineEvent) => void): RemoteEngine {
  if (new URLSearchParams(location.search).get('thread') === 'page') return new Engine(onEvent);
  const worker = new Worker(new URL('./engine_worker.ts', import.meta.url), { type: 'module' });
  const pending = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  let last = 0;
  worker.addEventListener('message', ({ data }: MessageEvent<Answer>) => {
    if ('event' in data) return onEvent(data.event);
    const call = pending.get(data.id);
    pending.delete(data.id);
    if ('error' in data) call?.reject(new Error(data.error));
    else call?.resolve(data.value as never);
  });
  worker.addEventListener('error', (event) => {
    for (const { reject } of pending.values()) reject(new Error(event.message || 'The worker failed.'));
    pending.clear();
  });
  const call =
    (method: Method) =>
    (...args: unknown[]) =>
      new Promise<never>((resolve, reject) => {
        const id = ++last;
        pending.set(id, { resolve, reject });
        worker.postMessage({ id, method, args } satisfies Call, args.filter(isTransferable));
      });
  return new Proxy({} as RemoteEngine, { get: (_, name) => call(name as Method) });
}

const isTransferable = (value: unknown): value is Transferable =>
  value instanceof ImageBitmap || (typeof VideoFrame !== 'undefined' && value instanceof VideoFrame);
