import { GpuError } from './errors.js';
import { expectWait, type Pace } from './pace.js';
import { PipelineCache } from './pipelines.js';
import { checkTuning, type DeviceTraits, MATRIX_FEATURE, type Tuning, traitsOf } from './traits.js';

export interface GpuOptions {
  /** Which adapter to prefer where there are several. Default `high-performance`. */
  powerPreference?: GPUPowerPreference;
  /** Ask for the software adapter. */
  forceFallbackAdapter?: boolean;
  /** Node only: Dawn without its bounds clamps. Faster; for weights and shapes that are trusted. */
  trusted?: boolean;
  /** Node only: further flags for Dawn, as `create()` of the npm package `webgpu` takes them. */
  dawnFlags?: readonly string[];
  /**
   * Multiply in f16 by the card's matrix units (tensor cores) where a net is asked for f16 precision. Default false, in Node
   * true where the environment variable WFR_MATRIX_UNITS is 1. Off because it is an experiment of Dawn: the WGSL may
   * change with any release, Node needs two of Dawn's unsafe switches for it (Chrome --enable-unsafe-webgpu), one of
   * which turns on f16 for NVIDIA's Vulkan driver, whose f16 does not pass all of WebGPU's conformance tests. Devices
   * without such units are used as if it were off (`traits.subgroupMatrix` tells).
   */
  matrixUnits?: boolean;
  /**
   * What `tuneProducts` measured on this device, or how to look it up by the adapter's names. Software adapters have no
   * use for it.
   */
  tuning?: Tuning | ((info: GPUAdapterInfo) => Tuning | undefined | Promise<Tuning | undefined>);
  /** Test hook: stay at WebGPU's guaranteed limits and features, whatever the adapter offers. */
  minimal?: boolean;
}

/** A contiguous part of a GPU buffer, offset and size in bytes. */
export interface BufferRange {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

const WANTED_FEATURES = ['shader-f16', 'subgroups', 'timestamp-query'] as const;
const WANTED_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
] as const;

/** Dawn's switches: experimental features, and f16 (which the units multiply) on NVIDIA's cards under Vulkan. */
const MATRIX_TOGGLES = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia'];
const TOGGLES = 'enable-dawn-features=';

const isNode = (): boolean => typeof process !== 'undefined' && Boolean(process.versions?.node);

/**
 * Finds an adapter (Dawn under Node, `navigator.gpu` in a page or worker) and opens a device with every limit
 * and feature of use that it offers.
 * @throws GpuError when there is no WebGPU or no adapter, saying what to install; when `tuning` is none.
 */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  let entry: GPU | undefined;
  const matrixUnits = options.matrixUnits ?? (isNode() && process.env.WFR_MATRIX_UNITS === '1');
  if (isNode()) {
    const given = options.dawnFlags ?? [];
    // Of several flags of one name Dawn takes one.
    const toggles = given.filter((f) => f.startsWith(TOGGLES)).map((f) => f.slice(TOGGLES.length));
    if (options.trusted) toggles.push('disable_robustness');
    if (matrixUnits) toggles.push(...MATRIX_TOGGLES);
    const flags = given.filter((f) => !f.startsWith(TOGGLES));
    if (toggles.length > 0) flags.push(`${TOGGLES}${toggles.join(',')}`);
    const { nodeWebGpu } = await import('./adapter.node.js');
    entry = await nodeWebGpu(flags);
  } else {
    entry = globalThis.navigator?.gpu;
    if (!entry) {
      throw new GpuError(
        'This browser has no WebGPU. Chrome and Edge 113+, Safari 26+ and Firefox 141+ have it; on Linux, Chrome may need --enable-unsafe-webgpu --enable-features=Vulkan. The page must be served over https or from localhost.',
      );
    }
  }
  const adapter = await entry.requestAdapter({
    powerPreference: options.powerPreference ?? 'high-performance',
    forceFallbackAdapter: options.forceFallbackAdapter ?? false,
  });
  if (!adapter) {
    throw new GpuError(
      isNode()
        ? 'WebGPU found no adapter: no Vulkan, Metal or Direct3D 12 driver. `node scripts/setup.mjs` installs a software driver on Debian and Ubuntu and says what to install elsewhere; `wfr doctor` shows what was found.'
        : 'WebGPU is there but found no adapter. Check that hardware acceleration is on and that the graphics driver is not block-listed (chrome://gpu).',
    );
  }
  const { tuning: given } = options;
  const tuning = checkTuning(typeof given === 'function' ? await given(adapter.info) : given);
  const requiredFeatures: GPUFeatureName[] = [];
  const requiredLimits: Record<string, number> = {};
  if (!options.minimal) {
    for (const f of WANTED_FEATURES) {
      if (adapter.features.has(f as GPUFeatureName)) requiredFeatures.push(f as GPUFeatureName);
    }
    if (matrixUnits && adapter.features.has(MATRIX_FEATURE)) requiredFeatures.push(MATRIX_FEATURE);
    for (const l of WANTED_LIMITS) requiredLimits[l] = adapter.limits[l];
  }
  const device = await adapter.requestDevice({ requiredFeatures, requiredLimits, label: 'wfr' });
  return new Gpu(entry, adapter, device, tuning);
}

/**
 * A device with what the layers above need of it: buffers that are counted, pipelines that are cached,
 * readback through reused staging buffers, and errors that surface at the next call instead of being lost.
 */
export class Gpu {
  readonly traits: DeviceTraits;
  readonly pipelines: PipelineCache;
  /** Live buffers made through `createBuffer` and their bytes: flat over repeated calls, and tests check it. */
  readonly stats = { buffers: 0, bytes: 0 };
  #failure: GpuError | undefined;
  #closed = false;
  #staging: GPUBuffer[] = [];
  #sizes = new Map<GPUBuffer, number>();

  constructor(
    /** Kept because Dawn's Node binding dies when entry and adapter are collected before the device. */
    readonly entry: GPU,
    readonly adapter: GPUAdapter,
    readonly device: GPUDevice,
    tuning?: Tuning,
  ) {
    this.traits = traitsOf(adapter.info, device, tuning);
    this.pipelines = new PipelineCache(device);
    device.addEventListener('uncapturederror', (event) => {
      const { error } = event as GPUUncapturedErrorEvent;
      this.#failure ??= new GpuError(`WebGPU reported an error: ${error.message}`);
    });
    void device.lost.then((info) => {
      if (this.#closed) return;
      this.#failure = new GpuError(
        `The GPU device was lost (${info.reason || 'unknown'}): ${info.message}. Open a new one with openGpu(); a driver reset or too little memory are the usual causes.`,
      );
    });
  }

  /** @throws GpuError when the device was closed or lost or has reported an error since it was opened. */
  check(): void {
    if (this.#closed) throw new GpuError('This GPU device was closed; open a new one with openGpu().');
    if (this.#failure) throw this.#failure;
  }

  /** @param mapped whether it is mapped from the beginning, to be written. */
  createBuffer(bytes: number, usage: GPUBufferUsageFlags, label: string, mapped = false): GPUBuffer {
    this.check();
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (size > this.device.limits.maxBufferSize) {
      throw new GpuError(
        `${label} needs ${size} bytes but this device allows ${this.device.limits.maxBufferSize} a buffer: use a smaller batch or picture.`,
      );
    }
    const buffer = this.device.createBuffer({ size, usage, label, mappedAtCreation: mapped });
    this.#sizes.set(buffer, size);
    this.stats.buffers++;
    this.stats.bytes += size;
    return buffer;
  }

  /** A storage buffer that can be written from and read back to the CPU, optionally filled with `data`. */
  createStorage(bytes: number, label: string, data?: ArrayBufferView): GPUBuffer {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    const buffer = this.createBuffer(bytes, usage, label);
    if (data) this.write(buffer, 0, data);
    return buffer;
  }

  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView): void {
    this.device.queue.writeBuffer(
      buffer,
      offset,
      data.buffer as ArrayBuffer,
      data.byteOffset,
      data.byteLength,
    );
  }

  destroyBuffer(buffer: GPUBuffer): void {
    const size = this.#sizes.get(buffer);
    if (size === undefined) return;
    this.#sizes.delete(buffer);
    this.stats.buffers--;
    this.stats.bytes -= size;
    buffer.destroy();
  }

  /** Records work and submits it, without waiting for it. */
  submit(record: (encoder: GPUCommandEncoder) => void): void {
    this.check();
    const encoder = this.device.createCommandEncoder();
    record(encoder);
    this.device.queue.submit([encoder.finish()]);
  }

  /**
   * Records work, submits it once and reads ranges back.
   * @param record what to record before the copies; may be empty.
   * @param ranges what to read back, sizes multiples of 4.
   * @param pace of this work where it is done again and again: learns from this run, and shortens nothing but the polling.
   * @returns one fresh ArrayBuffer a range.
   */
  runAndRead(
    record: (encoder: GPUCommandEncoder) => void,
    ranges: readonly BufferRange[],
    pace?: Pace,
  ): Promise<ArrayBuffer[]> {
    const copy = (bytes: ArrayBuffer, at: number, i: number) => bytes.slice(at, at + ranges[i].size);
    return this.runAndTake(record, ranges, copy, pace);
  }

  /**
   * The same for who takes only what it needs out of the mapped memory: one copy less of large results.
   * @param take gets the memory, where a range begins in it, and the range's number; the memory is gone when it returns.
   */
  async runAndTake<T>(
    record: (encoder: GPUCommandEncoder) => void,
    ranges: readonly BufferRange[],
    take: (bytes: ArrayBuffer, at: number, i: number) => T,
    pace?: Pace,
  ): Promise<T[]> {
    this.check();
    const begin = performance.now();
    const total = ranges.reduce((sum, r) => sum + r.size, 0);
    const staging = total > 0 ? this.#takeStaging(total) : undefined;
    let at = 0;
    this.submit((encoder) => {
      record(encoder);
      for (const r of ranges) {
        encoder.copyBufferToBuffer(r.buffer, r.offset, staging!, at, r.size);
        at += r.size;
      }
    });
    // The wait begins in the call that makes the promise, unless one is under way, which then goes on: nothing else may
    // take what was said of this one.
    expectWait(pace?.least ?? 0);
    const over = staging
      ? staging.mapAsync(GPUMapMode.READ, 0, total)
      : this.device.queue.onSubmittedWorkDone();
    expectWait(0);
    try {
      await over;
    } catch (error) {
      this.check();
      throw new GpuError(`Reading results back failed: ${(error as Error).message}`);
    }
    pace?.took(performance.now() - begin);
    if (!staging) {
      this.check();
      return [];
    }
    const bytes = staging.getMappedRange(0, total);
    at = 0;
    const out = ranges.map((r, i) => {
      const taken = take(bytes, at, i);
      at += r.size;
      return taken;
    });
    staging.unmap();
    this.#staging.push(staging);
    this.check();
    return out;
  }

  async read(buffer: GPUBuffer, offset: number, size: number): Promise<ArrayBuffer> {
    return (await this.runAndRead(() => {}, [{ buffer, offset, size }]))[0];
  }

  /** Smallest free staging buffer that fits; sizes are powers of two so that few are ever made. */
  #takeStaging(bytes: number): GPUBuffer {
    this.#staging.sort((a, b) => a.size - b.size);
    const index = this.#staging.findIndex((b) => b.size >= bytes);
    if (index >= 0) return this.#staging.splice(index, 1)[0];
    const size = 2 ** Math.max(16, Math.ceil(Math.log2(bytes)));
    return this.createBuffer(size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST, 'staging');
  }

  /** Destroys the device and everything made with it. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sizes.clear();
    this.#staging = [];
    this.stats.buffers = 0;
    this.stats.bytes = 0;
    this.device.destroy();
  }
}
