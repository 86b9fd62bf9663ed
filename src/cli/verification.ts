import { duration, type Progress, progress } from './progress.js';

/**
 * Progress of a run of many minutes: the usual bar on a terminal; in a log, a line now and then with the time that
 * is left, so that whoever reads it knows the run is alive.
 */
export function steadyProgress(
  total: number,
  unit: string,
  stream: NodeJS.WriteStream = process.stderr,
  everyMs = 60_000,
): Progress {
  const bar = progress(total, unit, stream);
  if (stream.isTTY) return bar;
  const start = Date.now();
  let [done, said] = [0, start];
  return {
    ...bar,
    step(label) {
      bar.step(label);
      done++;
      const now = Date.now();
      if (now - said < everyMs || done === total) return;
      said = now;
      const left = duration(((now - start) / done) * (total - done));
      bar.note(`${done} of ${total} ${unit}, about ${left} left`);
    },
  };
}
