/** Loaded by the page and, again, by its worker: the functions that tests call by name, there or here. */
import { clip } from './clip.js';
import { runNet } from './nets.js';
import { sharedGpu } from './shared.js';
import * as sources from './sources.js';
import * as weights from './weights.js';

const functions: Record<string, (...args: never[]) => Promise<unknown>> = {
  net: async (name: string) => runNet(await sharedGpu(), name),
  clip,
  ...sources,
  ...weights,
};

interface Call {
  name: string;
  args: never[];
}

let worker: Worker | undefined;

/** Runs a function in a worker that lives as long as the page. */
function inWorker(name: string, args: never[]): Promise<unknown> {
  worker ??= new Worker(import.meta.url, { type: 'module' });
  const own = worker;
  return new Promise((resolve, reject) => {
    own.onmessage = ({ data }) => ('error' in data ? reject(new Error(data.error)) : resolve(data.value));
    own.onerror = (event) => reject(new Error(event.message));
    own.postMessage({ name, args } satisfies Call);
  });
}

if (typeof document === 'undefined') {
  addEventListener('message', async ({ data: { name, args } }: MessageEvent<Call>) => {
    try {
      postMessage({ value: await functions[name](...args) });
    } catch (error) {
      postMessage({ error: `${(error as Error).stack}` });
    }
  });
} else {
  const here = (name: string, args: never[]) => functions[name](...args);
  Object.assign(globalThis, {
    call: (place: string, name: string, args: never[]) => (place === 'worker' ? inWorker : here)(name, args),
  });
}
