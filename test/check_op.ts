import { afterAll } from 'vitest';
import { type BufferRange, type Gpu, type GpuOptions, openGpu } from '../src/gpu/gpu.js';
import type { FloatType, KernelCall } from '../src/gpu/kernel_call.js';
import { Program } from '../src/gpu/program.js';
import type { DeviceTraits, TileSide } from '../src/gpu/traits.js';
import { halfBits } from '../src/kernels/packing.js';
import { channelsOf, type Operand, pad, quads, rowsOf, tensorBytes } from '../src/kernels/tensor.js';

const opened = new Map<string, Promise<Gpu>>();

/** One device a test file and set of options, closed when the file is done. */
export function sharedGpu(options: GpuOptions = {}): Promise<Gpu> {
  const key = JSON.stringify(options);
  let gpu = opened.get(key);
  if (!gpu) {
    gpu = openGpu(options);
    opened.set(key, gpu);
    if (opened.size === 1)
      afterAll(async () => {
        for (const g of opened.values()) (await g).close();
        opened.clear();
      });
  }
  return gpu;
}

/** A hardware GPU as far as plans can tell. */
export const card = (traits: DeviceTraits): DeviceTraits => ({
  ...traits,
  kind: 'gpu',
  subgroups: false,
  subgroupSize: 0,
});

/** The same, measured. */
export const tuned = (traits: DeviceTraits, side: TileSide, workgroups: number): DeviceTraits => ({
  ...(traits.kind === 'gpu' ? traits : card(traits)),
  tuning: { side, workgroups },
});

export const TOO_SMALL = "the device's limits do not allow workgroups of this tile";

/** Repeatable numbers in [-1, 1), never zero, so that a dropped term shows. */
export function noise(length: number, seed = 1): Float32Array {
  let state = (seed * 2654435761) >>> 0;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const v = (state / 2 ** 32) * 2 - 1;
    return Math.abs(v) < 1e-3 ? 1e-3 : v;
  });
}

/** What storing as a half makes of numbers; a reference must start from the same operands as the kernel. */
export function roundedTo(dtype: FloatType, data: Float32Array): Float32Array {
  return dtype === 'f32' ? data : data.map((v) => halfValue(halfBits(v)));
}

export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

export interface Output {
  name: string;
  shape: readonly number[];
  dtype?: FloatType;
  /** What the kernel has to give, unpadded, in f64. */
  expected: ArrayLike<number>;
  /**
   * Error allowed for every element: a multiple of the unit roundoff of f32 (of f16 where the output is stored
   * so) times `magnitude`, the sum of the absolute values that went into the element.
   */
  magnitude: ArrayLike<number>;
  /** Rounding steps of f32 to allow for. Default 8; a sum of n terms needs no more than n. */
  steps?: number;
}

/** Buffers of one check; destroyed with it. */
export class Buffers {
  readonly #made: GPUBuffer[] = [];
  constructor(readonly gpu: Gpu) {}

  bytes(data: ArrayBufferView): BufferRange {
    const size = Math.max(16, Math.ceil(data.byteLength / 4) * 4);
    const whole = new Uint8Array(size);
    whole.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    const buffer = this.gpu.createStorage(size, 'test', whole);
    this.#made.push(buffer);
    return { buffer, offset: 0, size };
  }

  /** An unpadded array as an operand in the layout and storage type kernels expect. */
  operand(data: Float32Array, shape: readonly number[], dtype: FloatType = 'f32'): Operand<BufferRange> {
    const padded = pad(data, shape);
    return { ref: this.bytes(dtype === 'f32' ? padded : halves(padded)), shape, dtype };
  }

  /** A vector [Cp] of f32. */
  vector(data: Float32Array): BufferRange {
    return this.bytes(pad(data, [1, data.length]));
  }

  /** Memory for an output, full of NaN, so that an element never written cannot pass. */
  output(shape: readonly number[], dtype: FloatType = 'f32'): Operand<BufferRange> {
    const words = new Uint32Array(tensorBytes(shape, dtype) / 4).fill(
      dtype === 'f32' ? 0x7fc00000 : 0x7e007e00,
    );
    return { ref: this.bytes(words), shape, dtype };
  }

  destroy(): void {
    for (const b of this.#made) this.gpu.destroyBuffer(b);
  }
}

function halves(padded: Float32Array): Uint16Array {
  return Uint16Array.from(padded, halfBits);
}

/** Reads an operand back with its padding, as numbers. */
export async function readOperand(gpu: Gpu, operand: Operand<BufferRange>): Promise<Float32Array> {
  const { buffer, offset } = operand.ref;
  const bytes = await gpu.read(buffer, offset, tensorBytes(operand.shape, operand.dtype));
  if (operand.dtype === 'f32') return new Float32Array(bytes);
  return Float32Array.from(new Uint16Array(bytes), halfValue);
}

/**
 * Runs kernel calls over fresh buffers and compares every output with its reference: each element within the
 * error its own sum may have, padding channels exactly zero, nothing left unwritten, no error from the device.
 * @throws Error naming the first element that is off.
 */
export async function checkOp(
  gpu: Gpu,
  build: (buffers: Buffers) => {
    calls: readonly KernelCall<BufferRange>[];
    outputs: readonly (Output & { operand: Operand<BufferRange> })[];
  },
): Promise<void> {
  const buffers = new Buffers(gpu);
  let program: Program | undefined;
  try {
    const { calls, outputs } = build(buffers);
    program = await Program.create(gpu, calls);
    await gpu.runAndRead((encoder) => program!.record(encoder), []);
    for (const output of outputs) compare(output, await readOperand(gpu, output.operand));
    gpu.check();
  } finally {
    program?.destroy();
    buffers.destroy();
  }
}

const F32 = 2 ** -24;
const F16 = 2 ** -11;

export function compare(output: Output, actual: Float32Array): void {
  const { name, shape, dtype = 'f32', expected, magnitude, steps = 8 } = output;
  const channels = channelsOf(shape);
  const padded = quads(channels) * 4;
  const rows = rowsOf(shape);
  if (expected.length !== rows * channels)
    throw new Error(`${name}: the reference has ${expected.length} elements, not ${rows * channels}.`);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < padded; c++) {
      const got = actual[r * padded + c];
      if (c >= channels) {
        if (got !== 0) throw new Error(`${name}: padding channel ${c} of row ${r} is ${got}, not 0.`);
        continue;
      }
      const want = expected[r * channels + c];
      const allowed =
        steps * F32 * magnitude[r * channels + c] + (dtype === 'f16' ? F16 * Math.abs(want) + 2 ** -24 : 0);
      // Written so that NaN fails.
      if (!(Math.abs(got - want) <= allowed))
        throw new Error(
          `${name}: element [${r}, ${c}] of [${shape.join(', ')}] is ${got}, expected ${want} ± ${allowed.toExponential(2)}.`,
        );
    }
  }
}
