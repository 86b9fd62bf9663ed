/** The status of a process that ended by Ctrl-C, as shells have it. */
export const INTERRUPTED = 130;

/**
 * Runs work that Ctrl-C (or a polite kill) stops between two steps. The first signal aborts `signal`, and the
 * work is to stop at its next chance (`signal.throwIfAborted()`), having finished or removed what it writes. A
 * second one ends the process at once, after `cleanup`, which must be synchronous.
 * @throws AbortError when the work let the abort through; main.ts turns it into exit status 130.
 */
export async function interruptible<T>(
  work: (signal: AbortSignal) => Promise<T>,
  cleanup: () => void = () => {},
): Promise<T> {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) {
      cleanup();
      process.exit(INTERRUPTED);
    }
    process.stderr.write('\nstopping after what is in hand; once more to stop at once\n');
    controller.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
