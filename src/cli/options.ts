// Options that several commands share, so that they are called and explained alike everywhere.
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { GpuOptions } from '../gpu/gpu.js';
import { storedTuning } from './tuning.js';

/**
 * Parses a number and refuses what is no number or out of range, with a message that says what is allowed.
 * For commander: `.option('--threshold <n>', 'what it is', numberIn(-1, 1))`.
 */
export function numberIn(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`Give a number ${range(min, max)}.`);
    return value;
  };
}

/** As numberIn(0, ∞), without 0. */
export function above0(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value < Number.POSITIVE_INFINITY))
    throw new InvalidArgumentError('Give a number above 0.');
  return value;
}

/** As numberIn, for whole numbers. */
export function integerIn(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`Give a whole number ${range(min, max)}.`);
    }
    return value;
  };
}

function range(min: number, max: number): string {
  if (max === Number.POSITIVE_INFINITY) return `of at least ${min}`;
  if (min === Number.NEGATIVE_INFINITY) return `of at most ${max}`;
  return `from ${min} to ${max}`;
}

/** Collects a repeatable option: `.option('--crop <dir>', 'what', collect, [])`. */
export function collect(text: string, before: readonly string[]): string[] {
  return [...before, text];
}

export interface JsonFlags {
  json?: boolean;
}

/** `--json`: the result as JSON on standard output, and nothing else there. */
export function jsonOption(command: Command): Command {
  return command.option('--json', 'print the result as JSON on standard output');
}

export interface WeightsFlags {
  weights?: string;
}

/** `--weights`: where the nets' weights are looked for first. */
export function weightsOption(command: Command): Command {
  return command.option(
    '--weights <path>',
    "a weight file or a folder of them (default: $WFR_WEIGHTS, what was pulled, the project's weights/)",
  );
}

export interface PrecisionFlags {
  precision?: 'f32' | 'f16';
}

/** `--precision`: how the recogniser keeps its weights and maps. The detector always works in f32. */
export function precisionOption(command: Command): Command {
  return command.addOption(
    new Option(
      '--precision <type>',
      "storage of the recogniser's weights and maps: f16 takes half the memory and is faster; sums stay f32",
    )
      .choices(['f32', 'f16'])
      .default('f32'),
  );
}

export interface GpuFlags {
  software?: boolean;
  trusted?: boolean;
}

/** `--software`, `--trusted`: which adapter, and how it is opened. */
export function gpuOptions(command: Command): Command {
  return command
    .option('--software', 'use the software adapter even where there is a graphics card')
    .option(
      '--trusted',
      'drop the bounds checks in kernels: faster, for weights and pictures that you trust',
    );
}

/** What openGpu() takes, from the flags of gpuOptions() and what `wfr tune` measured. */
export function toGpuOptions(flags: GpuFlags): GpuOptions {
  return {
    forceFallbackAdapter: flags.software ?? false,
    trusted: flags.trusted ?? false,
    tuning: (info) => storedTuning(info),
  };
}

/** Examples under a command's help: pairs of a command line and what it does. */
export function examples(
  command: Command,
  list: readonly (readonly [line: string, what: string])[],
): Command {
  const width = Math.max(...list.map(([line]) => line.length));
  const lines = list.map(([line, what]) => `  $ ${line.padEnd(width)}   ${what}`);
  return command.addHelpText('after', `\nExamples:\n${lines.join('\n')}`);
}
