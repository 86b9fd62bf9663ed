// What a person sees of a training run: a bar on a terminal, a line now and then in a log.
import { Presets, SingleBar } from 'cli-progress';
import type { StepReport } from '../../train/trainer.js';

export interface TrainProgressOptions {
  steps: number;
  first: number;
  /** Pictures and floating-point operations of a step. */
  pictures: number;
  flops: number;
  /** Measured peak of the device, GFLOP/s. */
  peak: number;
  stream?: NodeJS.WriteStream;
  /** Between two lines of a log. */
  everyMs?: number;
}

/** Weight of what came before in the moving averages that are shown. */
const MEMORY = 0.95;

export class TrainProgress {
  readonly #stream: NodeJS.WriteStream;
  readonly #bar: SingleBar | undefined;
  readonly #means = new Map<string, number>();
  #seconds = 0;
  #said = Date.now();

  constructor(private readonly o: TrainProgressOptions) {
    this.#stream = o.stream ?? process.stderr;
    if (!this.#stream.isTTY) return;
    this.#bar = new SingleBar(
      {
        format: '{bar} {value}/{total}  {figures}',
        stream: this.#stream,
        hideCursor: true,
        gracefulExit: false,
        linewrap: false,
        barsize: 20,
      },
      Presets.shades_classic,
    );
    this.#bar.start(o.steps, o.first, { figures: '' });
  }

  step(report: StepReport): void {
    for (const key of ['loss', 'accuracy', 'distance', 'relation'] as const) this.#mean(key, report[key]);
    // The first step compiles: it says nothing of the others.
    this.#seconds =
      this.#seconds === 0 || report.step <= this.o.first + 2
        ? report.seconds
        : MEMORY * this.#seconds + (1 - MEMORY) * report.seconds;
    const figures = this.#figures(report);
    if (this.#bar) {
      this.#bar.update(report.step, { figures });
      return;
    }
    const now = Date.now();
    if (
      now - this.#said < (this.o.everyMs ?? 60_000) &&
      report.step !== this.o.steps &&
      report.step > this.o.first + 1
    )
      return;
    this.#said = now;
    this.#stream.write(`step ${report.step}/${this.o.steps}  ${figures}\n`);
  }

  note(line: string): void {
    this.#stream.write(this.#bar ? `\r\x1b[K${line}\n` : `${line}\n`);
  }

  stop(): void {
    this.#bar?.stop();
  }

  #mean(key: string, value: number | undefined): void {
    if (value === undefined) return;
    const before = this.#means.get(key);
    this.#means.set(key, before === undefined ? value : MEMORY * before + (1 - MEMORY) * value);
  }

  #figures({ step, learningRate, waited, seconds }: StepReport): string {
    const { pictures, flops, peak, steps } = this.o;
    const means = this.#means;
    const parts = [`loss ${means.get('loss')!.toFixed(4)}`];
    const accuracy = means.get('accuracy');
    if (accuracy !== undefined) parts.push(`${(100 * accuracy).toFixed(1)} % right`);
    const distance = means.get('distance');
    if (distance !== undefined) parts.push(`teacher 1−cos ${distance.toFixed(3)}`);
    const rate = flops / this.#seconds / 1e9;
    parts.push(
      `lr ${learningRate.toPrecision(3)}`,
      `${(pictures / this.#seconds).toFixed(1)} pictures/s`,
      `${rate.toFixed(1)} GFLOP/s (${Math.round((100 * rate) / peak)} % of peak)`,
    );
    if (waited > 0.1 * seconds) parts.push(`${Math.round((100 * waited) / seconds)} % waiting for data`);
    parts.push(`${duration((steps - step) * this.#seconds)} left`);
    return parts.join(', ');
  }
}

export function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return `${Math.round(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
