/**
 * Dawn's Node binding polls in a tight loop through the global `setImmediate` while any of its promises is
 * pending. On a machine whose "GPU" is its CPU that takes a third of the arithmetic away; on others it burns
 * the core that should decode pictures. This wraps `setImmediate` so that the binding's own callback is
 * spaced out: the first polls come at once (short waits stay short), later ones after a sleep that grows with the wait,
 * for each takes some 25 µs from the kernels, and after some milliseconds by a 1 ms timer, which lets the event loop rest.
 * Of work whose pace is known none comes before it can be over (pace.ts).
 */
import { takeExpected } from './pace.js';

const IMMEDIATE_POLLS = 3;
const SLEEPING_POLLS = 20;
/** Of the time waited so far: what a sleep adds to a wait at most. */
const SLEEP_SHARE = 0.25;
const SHORTEST_SLEEP_MS = 0.2;
const LONGEST_SLEEP_MS = 1;

let installed = false;

export function spacePolls(): void {
  if (installed) return;
  installed = true;
  const original = globalThis.setImmediate;
  const sleepCell = new Int32Array(new SharedArrayBuffer(4));
  let polls = 0;
  /** When the wait began, or from when on it may be over: until then the time passed is negative. */
  let begin = 0;
  const passed = () => performance.now() - begin;
  let insidePoll = false;

  // Native, as are a promise's resolve (which takes a value) and bound functions (whose names say so).
  const isBindingCallback = (callback: unknown): boolean =>
    typeof callback === 'function' &&
    callback.length === 0 &&
    !callback.name.startsWith('bound ') &&
    Function.prototype.toString.call(callback).endsWith('{ [native code] }');

  const spaced = (callback: (...args: unknown[]) => void, ...args: unknown[]) => {
    if (!isBindingCallback(callback)) return original(callback, ...args);
    // A poll that schedules the next one continues the same wait; any other call begins a new one.
    if (insidePoll) polls++;
    else {
      const least = takeExpected();
      begin = performance.now() + least;
      polls = least > 0 ? IMMEDIATE_POLLS : 0;
    }
    const poll = () => {
      insidePoll = true;
      try {
        callback(...args);
      } finally {
        insidePoll = false;
      }
    };
    const early = -passed();
    // A timer comes up to a millisecond late.
    if (early > 2) return setTimeout(poll, Math.floor(early) - 1) as unknown as NodeJS.Immediate;
    if (polls < IMMEDIATE_POLLS) return original(poll);
    if (polls < SLEEPING_POLLS) {
      return original(() => {
        const ms = passed();
        const sleep = ms < 0 ? -ms : Math.max(SHORTEST_SLEEP_MS, SLEEP_SHARE * ms);
        Atomics.wait(sleepCell, 0, 0, Math.min(LONGEST_SLEEP_MS, sleep));
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
