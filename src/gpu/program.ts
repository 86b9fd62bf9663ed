import { GpuError } from './errors.js';
import type { BufferRange, Gpu } from './gpu.js';
import { type Access, bindOnce, type KernelCall, uniformBytes } from './kernel_call.js';

interface Step {
  pipeline: GPUComputePipeline;
  bindGroup: GPUBindGroup;
  workgroups: readonly [number, number, number];
}

/**
 * Kernel calls over concrete buffers, ready to be recorded any number of times: pipelines compiled, bind
 * groups and uniform values prebuilt, so that a run uploads nothing but its inputs.
 */
export class Program {
  private constructor(
    private readonly gpu: Gpu,
    readonly calls: readonly KernelCall<BufferRange>[],
    private readonly steps: readonly Step[],
    private readonly uniforms: GPUBuffer | undefined,
    /** Byte offset of each call's uniform values. */
    private readonly uniformOffsets: readonly number[],
  ) {}

  /**
   * @param isConstant whether a range is never written while the program lives (weights): bound read-only.
   *   Everything else is bound read-write, because WebGPU forbids a buffer to be both in one dispatch and
   *   intermediates share a buffer.
   */
  static async create(
    gpu: Gpu,
    given: readonly KernelCall<BufferRange>[],
    isConstant: (range: BufferRange) => boolean = () => false,
  ): Promise<Program> {
    gpu.check();
    const calls = given.map((call) => bindOnce(call, isSameRange));
    const alignment = gpu.device.limits.minUniformBufferOffsetAlignment;
    const offsets: number[] = [];
    let total = 0;
    for (const call of calls) {
      offsets.push(total);
      const bytes = Object.keys(call.uniforms).length > 0 ? uniformBytes(call.uniforms).byteLength : 0;
      total += Math.ceil(bytes / alignment) * alignment;
    }
    const accesses = calls.map((call) => {
      validate(gpu, call);
      return call.buffers.map((b): Access => (!b.write && isConstant(b.ref) ? 'read' : 'read_write'));
    });
    const pipelines = await Promise.all(calls.map((call, i) => gpu.pipelines.get(call, accesses[i])));
    let uniforms: GPUBuffer | undefined;
    if (total > 0) {
      uniforms = gpu.createBuffer(total, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST, 'uniforms');
      const bytes = new Uint8Array(Math.ceil(total / 16) * 16);
      calls.forEach((call, i) => {
        if (Object.keys(call.uniforms).length > 0) bytes.set(uniformBytes(call.uniforms), offsets[i]);
      });
      gpu.write(uniforms, 0, bytes);
    }
    const steps = calls.map((call, i): Step => {
      const entries: GPUBindGroupEntry[] = call.buffers.map((b, j) => ({ binding: j + 1, resource: b.ref }));
      if (Object.keys(call.uniforms).length > 0) {
        const size = uniformBytes(call.uniforms).byteLength;
        entries.unshift({ binding: 0, resource: { buffer: uniforms!, offset: offsets[i], size } });
      }
      const layout = gpu.pipelines.layout(call, accesses[i]);
      const bindGroup = gpu.device.createBindGroup({ label: call.label, layout, entries });
      return { pipeline: pipelines[i], bindGroup, workgroups: call.workgroups };
    });
    return new Program(gpu, calls, steps, uniforms, offsets);
  }

  /** Records calls `from` to `to` (all by default), in order, into one compute pass. */
  record(encoder: GPUCommandEncoder, from = 0, to = this.steps.length): void {
    recordPass(encoder, this.steps.slice(from, to));
  }

  /** Records each call in a pass of its own with time stamps either side (profiling). */
  recordTimed(encoder: GPUCommandEncoder, querySet: GPUQuerySet): void {
    this.steps.forEach((step, i) => {
      recordPass(encoder, [step], {
        querySet,
        beginningOfPassWriteIndex: 2 * i,
        endOfPassWriteIndex: 2 * i + 1,
      });
    });
  }

  /** Records all calls so many times over in one pass (timing). */
  recordRepeated(encoder: GPUCommandEncoder, times: number, stamps?: GPUComputePassTimestampWrites): void {
    recordPass(encoder, Array.from({ length: times }, () => this.steps).flat(), stamps);
  }

  /** Replaces the uniform values of one call (same fields), e.g. the length of a loop that is being measured. */
  setUniforms(index: number, uniforms: KernelCall<unknown>['uniforms']): void {
    this.gpu.write(this.uniforms!, this.uniformOffsets[index], uniformBytes(uniforms));
  }

  destroy(): void {
    if (this.uniforms) this.gpu.destroyBuffer(this.uniforms);
  }
}

function recordPass(
  encoder: GPUCommandEncoder,
  steps: readonly Step[],
  timestampWrites?: GPUComputePassTimestampWrites,
): void {
  const pass = encoder.beginComputePass({ timestampWrites });
  for (const step of steps) {
    pass.setPipeline(step.pipeline);
    pass.setBindGroup(0, step.bindGroup);
    pass.dispatchWorkgroups(...step.workgroups);
  }
  pass.end();
}

const isSameRange = (a: BufferRange, b: BufferRange) =>
  a.buffer === b.buffer && a.offset === b.offset && a.size === b.size;

function validate(gpu: Gpu, call: KernelCall<BufferRange>): void {
  const { limits } = gpu.device;
  if (call.workgroups.some((n) => n < 1 || n > limits.maxComputeWorkgroupsPerDimension)) {
    throw new GpuError(
      `${call.label}: a grid of ${call.workgroups.join('×')} workgroups is outside the device's limits.`,
    );
  }
  if (call.buffers.length > limits.maxStorageBuffersPerShaderStage) {
    throw new GpuError(
      `${call.label} binds ${call.buffers.length} buffers; this device allows ${limits.maxStorageBuffersPerShaderStage}.`,
    );
  }
  for (const b of call.buffers) {
    if (b.ref.size > limits.maxStorageBufferBindingSize) {
      throw new GpuError(
        `${call.label}: ${b.name} takes ${b.ref.size} bytes, this device binds at most ${limits.maxStorageBufferBindingSize}: use a smaller batch or picture.`,
      );
    }
  }
}
