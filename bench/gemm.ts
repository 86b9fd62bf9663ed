// npx tsx bench/gemm.ts [--size 256,1024,4096] [--runs 10] [--precision f16] [--trusted]
//
// Square matrix products, as 1×1 convolutions go to the device: one JSON line a size with GFLOP/s (best of several runs,
// by timestamp queries where there are any) beside the device's rate of multiply-adds in the same run. With --precision f16 maps are stored and
// the kernel is planned in f16: WFR_MATRIX_UNITS=1 takes the device's matrix units where it has them ("kernel" tells).
import { type BufferRange, openGpu } from '../src/gpu/gpu.js';
import type { FloatType } from '../src/gpu/kernel_call.js';
import { timeRepeated } from '../src/gpu/profile.js';
import { Program } from '../src/gpu/program.js';
import { denseShape } from '../src/graph/lowering.js';
import { conv2dForward } from '../src/kernels/conv2d/forward.js';
import { convFlops } from '../src/kernels/conv2d/geometry.js';
import { planConv2d } from '../src/kernels/conv2d/plan.js';
import { halfBits, packParameter } from '../src/kernels/packing.js';
import { measureFmaRate } from '../src/kernels/probe/measure.js';
import { tensorBytes } from '../src/kernels/tensor.js';
import { benchArgs, countOf, precisionOf } from './options.js';
import { adapterName, emit, round, wakeUp } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    size: { type: 'string', default: '256,1024' },
    runs: { type: 'string', default: '10' },
    trusted: { type: 'boolean', default: false },
    precision: { type: 'string', default: 'f32' },
  },
});
const precision = precisionOf(values.precision);
const runs = countOf('runs', values.runs);
const sizes = values.size.split(',').map((n) => countOf('size', n));
const gpu = await openGpu({ trusted: values.trusted });
const { gflops: peak } = await measureFmaRate(gpu, 1);
// Time stamps of a card come in steps of up to 65 µs.
const repeats = gpu.traits.kind === 'cpu' ? 1 : 8;
const scratch = (of: readonly number[], dtype: FloatType) => {
  const size = tensorBytes(of, dtype);
  const buffer = gpu.createStorage(size, 'scratch');
  return { ref: { buffer, offset: 0, size }, shape: of, dtype };
};
emit({ bench: 'device', adapter: adapterName(gpu), fma_gflops: round(peak) });
for (const n of sizes) {
  const shape = denseShape([n, n], [n, n]);
  const plan = planConv2d(shape, gpu.traits, { precision });
  const data = Float32Array.from({ length: n * n }, (_, i) => Math.sin(i));
  const stored = (name: string, bytes: ArrayBufferView): BufferRange => ({
    buffer: gpu.createStorage(bytes.byteLength, name, bytes),
    offset: 0,
    size: bytes.byteLength,
  });
  const map = precision === 'f16' ? Uint16Array.from(data, halfBits) : data;
  const [x, y] = ['x', 'y'].map((name) => stored(name, map));
  const weight = stored('weight', packParameter(data, [n, n, 1, 1], 'conv', plan.packing));
  const operand = (ref: BufferRange) => ({ ref, shape: [n, n], dtype: precision });
  const calls = conv2dForward(
    { shape, x: operand(x), weight, activation: 'none', y: operand(y), temporary: scratch },
    plan,
    gpu.traits,
  );
  const program = await Program.create(gpu, calls);
  const run = async () => (await timeRepeated(gpu, program, repeats)) / repeats;
  // The first run compiles.
  await run();
  await wakeUp(gpu, run);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < runs; i++) best = Math.min(best, await run());
  const gflops = convFlops(shape) / best / 1e6;
  emit({
    bench: 'gemm',
    size: n,
    precision,
    kernel: calls.map((c) => c.label).join(' + '),
    ms: round(best, 3),
    gflops: round(gflops),
    share_of_fma: round(gflops / peak, 3),
  });
  program.destroy();
  for (const { buffer } of [x, weight, y]) gpu.destroyBuffer(buffer);
}
gpu.close();
