/**
 * Work ahead in worker threads, results in order. For plain computation (decoding, augmenting): Dawn's binding does
 * not work in a worker thread.
 */
import { Worker } from 'node:worker_threads';
import { WfrError } from '../gpu/errors.js';

interface Waiting<R> {
  resolve(result: R): void;
  reject(error: Error): void;
}

/** What a worker sends back, by the number of the job. */
export interface Reply<R> {
  id: number;
  result?: R;
  error?: string;
}

/**
 * Threads that run one module, which must call `serveJobs` (prefetch_worker.node.ts). A job goes to the thread with the
 * fewest in hand.
 */
export class WorkerPool<J, R> {
  readonly #workers: { thread: Worker; waiting: Map<number, Waiting<R>> }[];
  #next = 0;
  #closed = false;

  /** @param module URL of the module, e.g. `new URL('./x_worker.node.js', import.meta.url)`. */
  constructor(module: URL, threads: number, workerData?: unknown) {
    this.#workers = Array.from({ length: threads }, () => {
      const thread = startWorker(module, workerData);
      const waiting = new Map<number, Waiting<R>>();
      const failAll = (error: Error) => {
        for (const { reject } of waiting.values()) reject(error);
        waiting.clear();
      };
      thread.on('message', ({ id, result, error }: Reply<R>) => {
        const job = waiting.get(id);
        waiting.delete(id);
        if (waiting.size === 0) thread.unref();
        if (error === undefined) job?.resolve(result as R);
        else job?.reject(new WfrError(error));
      });
      thread.on('error', failAll);
      thread.on('exit', (code) => {
        if (!this.#closed) failAll(new WfrError(`A worker thread ended with status ${code}.`));
      });
      // Only threads with a job in hand keep the program alive.
      thread.unref();
      return { thread, waiting };
    });
  }

  run(job: J): Promise<R> {
    const worker = this.#workers.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      worker.waiting.set(id, { resolve, reject });
      worker.thread.ref();
      worker.thread.postMessage({ id, job });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#workers.map(({ thread }) => thread.terminate()));
  }
}

/** Results of `work` over the jobs, in order, with up to `ahead` of them begun before they are asked for. */
export async function* prefetch<J, R>(
  jobs: Iterable<J>,
  ahead: number,
  work: (job: J) => Promise<R>,
): AsyncGenerator<R> {
  const begun: Promise<R>[] = [];
  const start = (job: J) => {
    const result = work(job);
    // It is awaited in its turn; until then a failure must not count as unhandled.
    result.catch(() => {});
    begun.push(result);
  };
  for (const job of jobs) {
    start(job);
    if (begun.length > ahead) yield await begun.shift()!;
  }
  while (begun.length > 0) yield await begun.shift()!;
}

/** A worker of a module that is not compiled yet (tests, tsx) needs a loader. */
function startWorker(module: URL, workerData: unknown): Worker {
  // Beside compiled code stands compiled code, beside sources sources.
  if (!import.meta.url.endsWith('.ts')) return new Worker(module, { workerData });
  const source = module.href.replace(/\.js$/, '.ts');
  const bootstrap = `import('tsx/esm/api').then(({ register }) => { register(); return import(${JSON.stringify(source)}); })`;
  return new Worker(bootstrap, { eval: true, workerData });
}
