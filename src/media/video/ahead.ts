/**
 * Lets a producer run ahead of its consumer by up to `count` items, so that decoding, GPU work and encoding overlap
 * with bounded memory.
 */
export async function* ahead<T>(items: AsyncIterable<T>, count: number): AsyncGenerator<T> {
  const iterator = items[Symbol.asyncIterator]();
  const queue: Promise<IteratorResult<T>>[] = [];
  const pull = () => {
    const next = iterator.next();
    // An error is thrown where its item is due.
    next.catch(() => {});
    queue.push(next);
  };
  try {
    for (let i = 0; i < count; i++) pull();
    for (;;) {
      const { value, done } = await queue.shift()!;
      if (done) return;
      pull();
      yield value;
    }
  } finally {
    await iterator.return?.();
  }
}
