/**
 * Learning rates by step. Every schedule but `one-cycle` may begin with a linear warm-up from zero.
 *
 *   constant    rate
 *   step        rate · factor^⌊epoch / every⌋
 *   polynomial  rate · (1 − t)^power                          t = share of the steps after the warm-up, 0 … 1
 *   cosine      final + (rate − final) · (1 + cos πt) / 2     (Loshchilov & Hutter 2017)
 *   one-cycle   up from rate/25 to rate over the first 30 % of the steps, then down to rate/250 000, both along a
 *               half cosine (Smith & Topin 2018)
 */
import { WfrError } from '../gpu/errors.js';

export const SCHEDULES = ['polynomial', 'step', 'cosine', 'one-cycle', 'constant'] as const;

export interface Schedule {
  kind: (typeof SCHEDULES)[number];
  /** The highest rate. */
  rate: number;
  /** Steps of the whole run. */
  steps: number;
  stepsPerEpoch: number;
  /** Steps of linear warm-up. Default 0. */
  warmup?: number;
  /** polynomial: exponent. Default 1. */
  power?: number;
  /** step: factor and the epochs between two steps. Default 0.95 every 10. */
  factor?: number;
  every?: number;
  /** cosine: the rate at the end. Default 0. */
  final?: number;
}

const CYCLE = { rise: 0.3, start: 25, end: 250_000 };

/** The rate of step `step` (from 0). Past the end it stays what it was at the last step. */
export function learningRate(schedule: Schedule, step: number): number {
  const { kind, rate, steps, warmup = 0 } = schedule;
  if (!(rate > 0) || !(steps >= 1))
    throw new WfrError(`A schedule needs a positive rate and at least one step, got ${rate} and ${steps}.`);
  const at = Math.min(step, steps - 1);
  if (kind === 'one-cycle') {
    const top = CYCLE.rise * steps - 1;
    return at <= top
      ? halfCosine(rate / CYCLE.start, rate, top > 0 ? at / top : 1)
      : halfCosine(rate, rate / CYCLE.end, (at - top) / Math.max(1, steps - 1 - top));
  }
  if (at < warmup) return (rate * (at + 1)) / (warmup + 1);
  const share = (at - warmup) / Math.max(1, steps - warmup);
  switch (kind) {
    case 'constant':
      return rate;
    case 'step':
      return (
        rate * (schedule.factor ?? 0.95) ** Math.floor(at / schedule.stepsPerEpoch / (schedule.every ?? 10))
      );
    case 'polynomial':
      return rate * (1 - share) ** (schedule.power ?? 1);
    case 'cosine':
      return halfCosine(rate, schedule.final ?? 0, share);
  }
}

/** From a to b as t goes from 0 to 1, level at both ends. */
const halfCosine = (a: number, b: number, t: number): number =>
  b + ((a - b) * (1 + Math.cos(Math.PI * t))) / 2;
