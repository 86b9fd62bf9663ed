/** Runs tasks one after another: calls that share GPU buffers may then come all at once (`Promise.all`). */
export class Queue {
  #last: Promise<unknown> = Promise.resolve();

  /** @returns what the task returns; its error reaches only its own caller. */
  add<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
