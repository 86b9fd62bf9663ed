import { Presets, SingleBar } from 'cli-progress';

export interface Progress {
  /** One item is done; `label` (a file name) is shown behind the bar. */
  step(label?: string): void;
  /** Prints a line above the bar, e.g. about a picture that could not be read. */
  note(line: string): void;
  /** Removes the bar. Call it in a `finally`. */
  stop(): void;
}

/**
 * A bar with the time that is left, on standard error so that results can be piped. Where nobody looks at a
 * terminal, or there is only one item, it draws nothing.
 * @param total items to come
 * @param unit what an item is, in the plural: `pictures`
 */
export function progress(total: number, unit: string, stream: NodeJS.WriteStream = process.stderr): Progress {
  if (!stream.isTTY || total < 2) {
    return { step() {}, note: (line) => void stream.write(`${line}\n`), stop() {} };
  }
  const bar = new SingleBar(
    {
      format: `{bar} {value}/{total} ${unit}{left}  {label}`,
      stream,
      clearOnComplete: true,
      hideCursor: true,
      gracefulExit: false,
      // Long names would wrap and leave torn bars behind.
      linewrap: false,
    },
    Presets.shades_classic,
  );
  bar.start(total, 0, { label: '', left: '' });
  const start = Date.now();
  let done = 0;
  return {
    step(label = '') {
      done++;
      bar.increment(1, { label, left: `, ${duration(((Date.now() - start) / done) * (total - done))} left` });
    },
    note(line) {
      stream.write(`\r\x1b[K${line}\n`);
      bar.render();
    },
    stop: () => bar.stop(),
  };
}

/** `40 s`, `12 min`, `2 h 05 min`. */
export function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

export interface BytesProgress {
  update(done: number, total: number): void;
  stop(): void;
}

/** A bar for a download, in megabytes, with the time that is left. */
export function bytesProgress(stream: NodeJS.WriteStream = process.stderr): BytesProgress {
  let bar: SingleBar | undefined;
  const megabytes = (bytes: number) => Number((bytes / 1e6).toFixed(1));
  return {
    update(done, total) {
      if (!stream.isTTY) return;
      if (!bar) {
        const format = '{bar} {value}/{total} MB, {eta_formatted} left';
        bar = new SingleBar(
          { format, stream, clearOnComplete: true, hideCursor: true, gracefulExit: false },
          Presets.shades_classic,
        );
        bar.start(megabytes(total), 0);
      }
      bar.update(megabytes(done));
    },
    stop: () => bar?.stop(),
  };
}

export interface FramesProgress {
  /** @param share of the whole, 0…1, where its length is known */
  update(frames: number, share?: number): void;
  note(line: string): void;
  stop(): void;
}

/** A bar for a video: share done, frames a second, time left. In a log, a line a minute. */
export function framesProgress(label: string, stream: NodeJS.WriteStream = process.stderr): FramesProgress {
  const began = Date.now();
  let said = began;
  let bar: SingleBar | undefined;
  const rate = (frames: number) => (frames / Math.max(0.001, (Date.now() - began) / 1000)).toFixed(1);
  const left = (share: number | undefined) =>
    share ? `${Math.ceil((((Date.now() - began) / 1000) * (1 - share)) / share)} s left` : '';
  return {
    update(frames, share) {
      if (!stream.isTTY) {
        if (Date.now() - said < 60_000) return;
        said = Date.now();
        const percent = share === undefined ? '' : `${Math.floor(100 * share)} %, `;
        stream.write(`${label}: ${frames} frames, ${percent}${rate(frames)} fps, ${left(share)}\n`);
        return;
      }
      if (!bar) {
        const format = '{bar} {frames} frames, {rate} fps, {left}  {label}';
        bar = new SingleBar(
          { format, stream, clearOnComplete: true, hideCursor: true, gracefulExit: false, linewrap: false },
          Presets.shades_classic,
        );
        bar.start(1000, 0, { frames: 0, rate: '', left: '', label });
      }
      bar.update(Math.round(1000 * (share ?? 0)), { frames, rate: rate(frames), left: left(share) });
    },
    note(line) {
      stream.write(stream.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`);
    },
    stop: () => bar?.stop(),
  };
}
