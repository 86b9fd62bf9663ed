/**
 * Measures what the plans for hardware GPUs cannot know of a device: which tile suits its cores, and how many workgroups
 * fill them. The best plans for one card are not the best for another.
 */
import type { BufferRange, Gpu } from '../../gpu/gpu.js';
import type { FloatType } from '../../gpu/kernel_call.js';
import { timeRepeated } from '../../gpu/profile.js';
import { Program } from '../../gpu/program.js';
import { type DeviceTraits, TILE_SIDES, type Tuning } from '../../gpu/traits.js';
import { tensorBytes } from '../tensor.js';
import { conv2dForward } from './forward.js';
import { isAllowed, TILES, UNTUNED } from './gemm.js';
import { planConv2d } from './plan.js';
import type { Conv2dShape } from './types.js';

export interface TuneOptions {
  /** Told again and again what share is done, 0…1. */
  onProgress?: (share: number) => void;
  /** Stops the measuring between two kernels; the promise is then rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Test hook: plan as for this device, whatever it is. */
  traits?: DeviceTraits;
}

export interface MeasuredTuning extends Tuning {
  /** Times as fast as without the tuning, geometric means: large products by the tile, layers of few pixels by their parts. */
  readonly gains: { readonly side: number; readonly workgroups: number };
}

/** Share of the default's time that another has to come below: noise changes no plans. */
const WORTH = 0.97;
/** Milliseconds that a sample takes at least: time stamps come in steps of up to 0.1. */
const SAMPLE = 10;
/** Milliseconds of samples in turn. A card at rest has a low clock, which half a second of work raises. */
const ROUNDS = 1500;

/**
 * Finds the tuning of a hardware GPU in some seconds, most of which are compilation, to be kept and given to
 * `openGpu({ tuning })` whenever this device is opened with this driver. A software adapter's plans know no tuning, and it
 * is given the default at once.
 * @param gpu should have nothing else to do meanwhile.
 * @throws GpuError when the device fails.
 */
export async function tuneProducts(gpu: Gpu, options: TuneOptions = {}): Promise<MeasuredTuning> {
  const { traits = gpu.traits, onProgress, signal } = options;
  if (traits.kind !== 'gpu') return { ...UNTUNED, gains: { side: 1, workgroups: 1 } };
  const measure = (shapes: Conv2dShape[], tunings: Tuning[], rounds: number, from: number, to: number) =>
    timeTunings(gpu, traits, shapes, tunings, rounds, (share) => {
      signal?.throwIfAborted();
      onProgress?.(from + share * (to - from));
    });

  // Products as large as the device makes in a few milliseconds.
  let size = 512;
  const large = async () => (await measure([layer(size, 1, size, size, 1)], [UNTUNED], 100, 0, 0))[0];
  while (size < 4096 && (await large()) < 5) size *= 2;
  const batch = Math.min(16, (size / 512) ** 2);

  // One workgroup is enough here, so that no candidate is planned away or in parts.
  const sides = TILE_SIDES.filter((side) => isAllowed(TILES[side], traits));
  const layers = [layer(size, 1, size, size, 1), layer(batch, 56, 64, 128, 3), layer(batch, 56, 64, 128, 1)];
  const sideTimes = await measure(
    layers,
    sides.map((side) => ({ side, workgroups: 1 })),
    ROUNDS,
    0.1,
    0.6,
  );
  const side = best(sides, sideTimes, UNTUNED.side);

  const numbers = [16, 32, 64, 128, 256, 512];
  const few = [layer(1, 7, 512, 512, 3), layer(Math.min(batch, 4), 14, 256, 256, 3)];
  const numberTimes = await measure(
    few,
    numbers.map((workgroups) => ({ side: side.value, workgroups })),
    ROUNDS,
    0.6,
    1,
  );
  const workgroups = best(numbers, numberTimes, UNTUNED.workgroups);
  return {
    side: side.value,
    workgroups: workgroups.value,
    gains: { side: side.gain, workgroups: workgroups.gain },
  };
}

/** A square filter over square maps at stride 1; a product of matrices is one of 1×1 over maps of 1×1. */
function layer(batch: number, size: number, inChannels: number, outChannels: number, kernel: number) {
  const shape: Conv2dShape = {
    batch,
    inHeight: size,
    inWidth: size,
    inChannels,
    outHeight: size,
    outWidth: size,
    outChannels,
    kernelHeight: kernel,
    kernelWidth: kernel,
    stride: 1,
    padding: (kernel - 1) / 2,
    dilation: 1,
    groups: 1,
  };
  return shape;
}

/** The first of the fastest, unless the default is as good; and how many times as fast as the default it is. */
function best<T>(values: readonly T[], times: readonly number[], usual: T): { value: T; gain: number } {
  const before = times[values.indexOf(usual)];
  const least = Math.min(...times);
  if (least >= WORTH * before || !Number.isFinite(before)) return { value: usual, gain: 1 };
  return { value: values[times.indexOf(least)], gain: before / least };
}

interface Timed {
  readonly program: Program;
  /** Runs a sample has. */
  repeats: number;
  /** Of a run, the least so far. */
  ms: number;
}

/**
 * Milliseconds of the shapes as planned by each tuning, geometric means. Samples are taken in turn, so that all have the
 * same clock, and the least counts.
 * @param rounds milliseconds of samples, at least.
 */
async function timeTunings(
  gpu: Gpu,
  traits: DeviceTraits,
  shapes: readonly Conv2dShape[],
  tunings: readonly Tuning[],
  rounds: number,
  onProgress: (share: number) => void,
): Promise<number[]> {
  const buffers: GPUBuffer[] = [];
  const scratch = (shape: readonly number[], dtype: FloatType) => {
    const bytes = tensorBytes(shape, dtype);
    const buffer = gpu.createStorage(bytes, 'tuning');
    buffers.push(buffer);
    return { ref: { buffer, offset: 0, size: bytes }, shape, dtype };
  };
  // Tunings that give one plan have one time.
  const timed = new Map<string, Timed>();
  try {
    const keys: string[][] = tunings.map(() => []);
    for (const [j, shape] of shapes.entries()) {
      const callOf = callWith(shape, scratch);
      for (const [i, tuning] of tunings.entries()) {
        const plan = planConv2d(shape, { ...traits, tuning });
        const key = JSON.stringify([shape, plan]);
        keys[i][j] = key;
        if (timed.has(key)) continue;
        const program = await Program.create(gpu, conv2dForward(callOf, plan, traits));
        const entry = { program, repeats: 1, ms: Number.POSITIVE_INFINITY };
        timed.set(key, entry);
        // The first run compiles.
        await timeRepeated(gpu, program, 1);
        while (entry.repeats < 256 && (await timeRepeated(gpu, program, entry.repeats)) < SAMPLE)
          entry.repeats *= 2;
        onProgress((0.5 * timed.size) / (shapes.length * tunings.length));
      }
    }
    const begin = performance.now();
    for (let round = 0; round < 3 || performance.now() - begin < rounds; round++) {
      for (const t of timed.values()) {
        const ms = (await timeRepeated(gpu, t.program, t.repeats)) / t.repeats;
        // Time stamps may go backwards, when a device sets its timer anew.
        if (ms > 0) t.ms = Math.min(t.ms, ms);
        onProgress(0.5 + 0.5 * Math.min(1, (performance.now() - begin) / rounds));
      }
    }
    return keys.map((own) =>
      Math.exp(own.reduce((sum, k) => sum + Math.log(timed.get(k)!.ms), 0) / own.length),
    );
  } finally {
    for (const { program } of timed.values()) program.destroy();
    for (const buffer of buffers) gpu.destroyBuffer(buffer);
  }
}

/** A layer over memory of its own, full of zeros: its time does not depend on the numbers. */
function callWith(
  shape: Conv2dShape,
  temporary: (
    shape: readonly number[],
    dtype: FloatType,
  ) => { ref: BufferRange; shape: readonly number[]; dtype: FloatType },
) {
  const { batch, inHeight, inWidth, inChannels, outHeight, outWidth, outChannels } = shape;
  const taps = shape.kernelHeight * shape.kernelWidth;
  return {
    shape,
    x: temporary([batch, inHeight, inWidth, inChannels], 'f32'),
    weight: temporary([taps * inChannels, outChannels], 'f32').ref,
    activation: 'none' as const,
    y: temporary([batch, outHeight, outWidth, outChannels], 'f32'),
    temporary,
  };
}
