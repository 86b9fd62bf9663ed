import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GpuError } from '../../src/gpu/errors.js';
import { type Gpu, openGpu } from '../../src/gpu/gpu.js';
import { type KernelCall, u32, uniformBytes, wgslOf } from '../../src/gpu/kernel_call.js';
import { profileProgram } from '../../src/gpu/profile.js';
import { Program } from '../../src/gpu/program.js';
import { add } from '../../src/kernels/elementwise/forward.js';
import { Buffers } from '../check_op.js';

let gpu: Gpu;
beforeAll(async () => {
  gpu = await openGpu();
});
afterAll(() => gpu.close());

const twice = (buffers: Buffers, body = 'y[0] = x[0] + x[0];'): KernelCall<ReturnType<Buffers['bytes']>> => ({
  label: 'twice',
  uniforms: {},
  buffers: [
    { name: 'x', ref: buffers.bytes(Float32Array.of(21, 0, 0, 0)), element: 'f32', write: false },
    { name: 'y', ref: buffers.bytes(new Float32Array(4)), element: 'f32', write: true },
  ],
  body: `@compute @workgroup_size(1)\nfn main() {\n  ${body}\n}`,
  workgroups: [1, 1, 1],
  flops: 1,
  bytes: 8,
});

describe('shaders that do not compile', () => {
  it('show the line, its neighbours and a caret, and leave the device usable', async () => {
    const buffers = new Buffers(gpu);
    const failure = await Program.create(gpu, [twice(buffers, 'y[0] = x[0] + nonsense;')]).catch(
      (e: Error) => e,
    );
    expect(failure).toBeInstanceOf(Error);
    const { message } = failure as Error;
    expect(message).toMatch(/WGSL of twice does not compile, line 5: .*nonsense/);
    expect(message).toMatch(/> +5 \| +y\[0\] = x\[0\] \+ nonsense;\n +\^/);
    gpu.check();
    const call = twice(buffers);
    const program = await Program.create(gpu, [call]);
    const [bytes] = await gpu.runAndRead((e) => program.record(e), [call.buffers[1].ref]);
    expect(new Float32Array(bytes)[0]).toBe(42);
    program.destroy();
    buffers.destroy();
  });
});

describe('a program', () => {
  it('keeps buffers and bytes flat over 100 runs', async () => {
    const buffers = new Buffers(gpu);
    const [a, b, y] = [
      buffers.operand(Float32Array.of(1, 2), [1, 2]),
      buffers.operand(Float32Array.of(3, 4), [1, 2]),
      buffers.output([1, 2]),
    ];
    const program = await Program.create(gpu, add(a, b, y));
    await gpu.runAndRead((e) => program.record(e), [y.ref]);
    const before = { ...gpu.stats };
    for (let i = 0; i < 100; i++) {
      const [bytes] = await gpu.runAndRead((e) => program.record(e), [y.ref]);
      expect([...new Float32Array(bytes).slice(0, 2)]).toEqual([4, 6]);
    }
    expect(gpu.stats).toEqual(before);
    program.destroy();
    buffers.destroy();
  });

  it('refuses grids and bindings beyond the limits, by name', async () => {
    const buffers = new Buffers(gpu);
    const call = twice(buffers);
    await expect(Program.create(gpu, [{ ...call, workgroups: [70_000, 1, 1] }])).rejects.toThrow(
      /twice: a grid of 70000×1×1/,
    );
    const big = { ...call.buffers[0], ref: { ...call.buffers[0].ref, size: 2 ** 33 } };
    await expect(Program.create(gpu, [{ ...call, buffers: [big, call.buffers[1]] }])).rejects.toThrow(
      /x takes 8589934592 bytes/,
    );
    buffers.destroy();
  });

  it('is timed kernel by kernel where the adapter can', async (ctx) => {
    if (!gpu.device.features.has('timestamp-query')) return ctx.skip('the adapter has no timestamp queries');
    const buffers = new Buffers(gpu);
    const program = await Program.create(gpu, [twice(buffers), twice(buffers)]);
    const times = await profileProgram(gpu, program);
    expect(times.map((t) => t.label)).toEqual(['twice', 'twice']);
    for (const t of times) expect(t.ms).toBeGreaterThanOrEqual(0);
    program.destroy();
    buffers.destroy();
  });
});

describe('the text of a kernel', () => {
  it('declares uniforms, buffers and accessors for the storage type', () => {
    const call = {
      label: 'k',
      uniforms: { n: u32(3) },
      body: 'BODY',
      workgroups: [1, 1, 1] as const,
      flops: 0,
      bytes: 0,
      buffers: [{ name: 'h', ref: 0, element: 'vec2<u32>', dtype: 'f16' as const, write: true }],
    };
    const text = wgslOf(call, ['read_write']);
    expect(text).toContain('struct Params { n: u32 }');
    expect(text).toContain('@group(0) @binding(1) var<storage, read_write> h: array<vec2<u32>>;');
    expect(text).toContain('unpack2x16float');
    expect(text).toContain('fn store_h(');
    expect([...new Uint32Array(uniformBytes(call.uniforms).buffer)]).toEqual([3, 0, 0, 0]);
  });
});

describe('a device', () => {
  it('works at the guaranteed limits: 8 storage buffers, 128 MiB, no features', async () => {
    const small = await openGpu({ minimal: true });
    expect(small.traits.maxStorageBuffers).toBe(8);
    expect(small.traits.maxBindingBytes).toBe(128 * 1024 * 1024);
    expect(small.traits.subgroups).toBe(false);
    const buffers = new Buffers(small);
    const call = twice(buffers);
    const program = await Program.create(small, [call]);
    const [bytes] = await small.runAndRead((e) => program.record(e), [call.buffers[1].ref]);
    expect(new Float32Array(bytes)[0]).toBe(42);
    small.close();
  });

  it('burns no processor time while it idles', async () => {
    await gpu.runAndRead(() => {}, []);
    await sleep(200);
    const before = process.cpuUsage();
    await sleep(1000);
    const { user, system } = process.cpuUsage(before);
    // A device that is polled takes the whole second.
    expect((user + system) / 1000).toBeLessThan(300);
  });

  it('reports what the driver complains of at the next call', async () => {
    const other = await openGpu();
    const buffer = other.device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE });
    const encoder = other.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, buffer, 8, 4);
    other.device.queue.submit([encoder.finish()]);
    await other.device.queue.onSubmittedWorkDone();
    await sleep(50);
    expect(() => other.check()).toThrow(/WebGPU reported an error/);
    other.close();
    expect(() => other.check()).toThrow(/was closed/);
  });

  it('reads many ranges in one go and reuses its staging', async () => {
    const buffers = new Buffers(gpu);
    const ranges = [1, 2, 3].map((v) => buffers.bytes(Float32Array.of(v, v, v, v)));
    const read = async () => (await gpu.runAndRead(() => {}, ranges)).map((b) => new Float32Array(b)[3]);
    expect(await read()).toEqual([1, 2, 3]);
    const before = { ...gpu.stats };
    expect(await Promise.all([read()])).toEqual([[1, 2, 3]]);
    expect(gpu.stats).toEqual(before);
    buffers.destroy();
  });
});

describe('a tuning', () => {
  it('goes into the traits, also looked up by the adapter', async () => {
    const tuning = { side: 32, workgroups: 48 } as const;
    const asked: string[] = [];
    const look = async (info: GPUAdapterInfo) => {
      asked.push(info.description);
      return tuning;
    };
    for (const given of [tuning, look]) {
      const tuned = await openGpu({ tuning: given });
      expect(tuned.traits.tuning).toEqual(tuning);
      tuned.close();
    }
    expect(asked).toEqual([gpu.adapter.info.description]);
    expect(gpu.traits.tuning).toBeUndefined();
  });

  it.each([
    { side: 48, workgroups: 128 },
    { side: 64, workgroups: 0 },
    { side: 64, workgroups: 1.5 },
    { side: 64, workgroups: 1e9 },
    { side: 64, workgroups: 5000 },
    { side: 'x'.repeat(1000), workgroups: 2 },
    { side: 64 },
    {},
    0,
    '',
    false,
  ])('%j is refused, with what is allowed', async (tuning) => {
    const failure = await openGpu({ tuning: tuning as never }).catch((e: Error) => e);
    expect(failure).toBeInstanceOf(GpuError);
    expect((failure as Error).message).toMatch(/side must be 32, 64, 128, workgroups a whole number/);
    expect((failure as Error).message.length).toBeLessThan(200);
  });
});
