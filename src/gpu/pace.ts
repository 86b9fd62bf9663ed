/**
 * How long a piece of work takes that is done again and again. Under Node the end of a wait is learnt by polling, and where
 * the adapter is the processor each poll takes time from the kernels: polling.node.ts begins when the work could be over.
 */
export class Pace {
  #last: number[] = [];

  /** Milliseconds that the next time will take at least: nine tenths of the shortest of the last three; 0 until there were two. */
  get least(): number {
    return this.#last.length < 2 ? 0 : 0.9 * Math.min(...this.#last);
  }

  /** @param ms that it took this time, until it was known to be over. */
  took(ms: number): void {
    // Over at the first poll: perhaps long before, so what was learnt is too slow.
    const isSlow = this.least > 0 && ms < this.least + FIRST_POLL_MS;
    this.#last = isSlow ? [] : [...this.#last.slice(-2), ms];
  }
}

const FIRST_POLL_MS = 0.2;

let expected = 0;

/** Says of the wait that begins next that it cannot be over before so many milliseconds have passed. */
export function expectWait(ms: number): void {
  expected = ms;
}

/** What was said of the wait that begins now; 0 when nothing was. */
export function takeExpected(): number {
  const ms = expected;
  expected = 0;
  return ms;
}
