/**
 * Dawn's Node binding polls in a tight loop through the global `setImmediate` while any of its promises is
 * pending. On a machine whose "GPU" is its CPU that takes a third of the arithmetic away; on others it burns
 * the core that should decode pictures. This wraps `setImmediate` so that the binding's own callback is
 * spaced out: the first polls come at once (short waits stay short), later ones after 0.1 ms of sleep, and
 * after some milliseconds by a 1 ms timer, which lets the event loop rest.
 */
const IMMEDIATE_POLLS = 3;
const SLEEP_MS = 0.1;
const SLEEPING_POLLS = 200;

let installed = false;

export function spacePolls(): void {
  if (installed) return;
  installed = true;
  const original = globalThis.setImmediate;
  const sleepCell = new Int32Array(new SharedArrayBuffer(4));
  let polls = 0;
  let insidePoll = false;

  const isBindingCallback = (callback: unknown): boolean =>
    typeof callback === 'function' &&
    !callback.name.startsWith('bound ') &&
    Function.prototype.toString.call(callback).endsWith('{ [native code] }');

  const spaced = (callback: (...args: unknown[]) => void, ...args: unknown[]) => {
    if (!isBindingCallback(callback)) return original(callback, ...args);
    // A poll that schedules the next one continues the same wait; any other call begins a new one.
    polls = insidePoll ? polls + 1 : 0;
    const poll = () => {
      insidePoll = true;
      try {
        callback(...args);
      } finally {
        insidePoll = false;
      }
    };
    if (polls < IMMEDIATE_POLLS) return original(poll);
    if (polls < SLEEPING_POLLS) {
      return original(() => {
        Atomics.wait(sleepCell, 0, 0, SLEEP_MS);
        poll();
      });
    }
    return setTimeout(poll, 1) as unknown as NodeJS.Immediate;
  };
  // Node attaches util.promisify's symbol to setImmediate; keep it for promisified users.
  globalThis.setImmediate = Object.assign(spaced, original) as unknown as typeof setImmediate;
  for (const symbol of Object.getOwnPropertySymbols(original)) {
    Object.defineProperty(
      globalThis.setImmediate,
      symbol,
      Object.getOwnPropertyDescriptor(original, symbol)!,
    );
  }
}
