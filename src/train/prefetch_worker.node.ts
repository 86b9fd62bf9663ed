import { parentPort } from 'node:worker_threads';
import type { Reply } from './prefetch.node.js';

/**
 * The thread's side of a WorkerPool: answers every job.
 * @param transfer the buffers of a result that are handed over instead of copied.
 */
export function serveJobs<J, R>(
  work: (job: J) => R | Promise<R>,
  transfer: (result: R) => ArrayBuffer[] = () => [],
): void {
  const port = parentPort!;
  port.on('message', async ({ id, job }: { id: number; job: J }) => {
    try {
      const result = await work(job);
      port.postMessage({ id, result } satisfies Reply<R>, transfer(result));
    } catch (error) {
      port.postMessage({ id, error: (error as Error).message } satisfies Reply<R>);
    }
  });
}
