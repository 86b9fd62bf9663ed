import { type Gpu, openGpu } from '../../gpu/gpu.js';
import { measureFmaRate } from '../../kernels/probe/measure.js';
import { type GpuFlags, toGpuOptions } from '../options.js';
import type { AdapterFacts, Finding } from './report.js';

const SHOWN_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxTextureDimension2D',
] as const;

/** Features that wfr uses where they are, and what it does without them. */
const USED_FEATURES: Readonly<Record<string, string>> = {
  'shader-f16': 'without it arithmetic is in f32 only, which is slower on most cards',
  subgroups: 'without it kernels use plain loads, which is slower',
  'timestamp-query': 'without it profiles show no time per kernel',
};

/** Opens the GPU, reads what it offers and measures it for `seconds` (0: not at all). */
export async function examineAdapter(
  flags: GpuFlags,
  seconds: number,
): Promise<{ facts: AdapterFacts | null; findings: Finding[] }> {
  let gpu: Gpu;
  try {
    gpu = await openGpu(toGpuOptions(flags));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const advice = await driverAdvice();
    return {
      facts: null,
      findings: [{ name: 'adapter', state: 'missing', value: message.split(/[:.] /)[0], advice }],
    };
  }
  try {
    const { info } = gpu.adapter;
    const features = [...gpu.adapter.features].sort();
    const limits = Object.fromEntries(SHOWN_LIMITS.map((name) => [name, gpu.device.limits[name]]));
    const speed = seconds > 0 ? await measureFmaRate(gpu, seconds) : null;
    const facts: AdapterFacts = {
      description: info.description,
      vendor: info.vendor,
      architecture: info.architecture,
      device: info.device,
      kind: gpu.traits.kind === 'cpu' ? 'software' : 'hardware',
      tuning: gpu.traits.tuning ?? null,
      features,
      limits,
      speed: speed && { gflops: speed.gflops, firstMs: speed.firstMs, roundTripMs: speed.roundTripMs },
    };
    return { facts, findings: describe(facts) };
  } finally {
    gpu.close();
  }
}

/** What to install here: the words of the set-up, which is no module of the library but is packed with it. */
async function driverAdvice(): Promise<string> {
  const { adviceHere } = await import(new URL('../../../scripts/lib/driver.mjs', import.meta.url).href);
  return adviceHere();
}

/** The lines about an adapter. */
export function describe(facts: AdapterFacts): Finding[] {
  const findings: Finding[] = [];
  const names = [facts.vendor, facts.architecture, facts.device].filter(Boolean).join(', ');
  findings.push({ name: 'adapter', state: 'ok', value: names || 'unnamed' });
  findings.push({ name: 'driver', state: 'ok', value: facts.description || 'not told' });
  findings.push(
    facts.kind === 'software'
      ? {
          name: 'kind',
          state: 'note',
          value: 'software: the processor does the work',
          advice: 'Everything works, slowly. With a graphics card, install its maker’s driver.',
        }
      : { name: 'kind', state: 'ok', value: 'hardware' },
  );
  if (facts.kind === 'hardware') {
    const { tuning } = facts;
    findings.push({
      name: 'tuning',
      state: 'ok',
      value: tuning
        ? `in use: tiles of ${tuning.side}×${tuning.side}, ${tuning.workgroups} workgroups fill the card`
        : 'none: wfr tune measures in some seconds which kernels suit this card',
    });
  }
  for (const [feature, without] of Object.entries(USED_FEATURES)) {
    const there = facts.features.includes(feature);
    findings.push({
      name: feature,
      state: there ? 'ok' : 'note',
      value: there ? 'yes' : `no: ${without}`,
    });
  }
  const { limits } = facts;
  findings.push({
    name: 'limits',
    state: 'ok',
    value:
      `${mebibytes(limits.maxStorageBufferBindingSize)} a binding, ${mebibytes(limits.maxBufferSize)} a buffer, ` +
      `${limits.maxStorageBuffersPerShaderStage} buffers a kernel, ` +
      `${limits.maxComputeInvocationsPerWorkgroup} invocations and ` +
      `${Math.round(limits.maxComputeWorkgroupStorageSize / 1024)} KiB a workgroup`,
  });
  if (facts.speed) {
    const { gflops, firstMs, roundTripMs } = facts.speed;
    findings.push({
      name: 'speed',
      state: 'ok',
      value: `${gflops.toFixed(gflops < 100 ? 1 : 0)} GFLOP/s in multiply-adds, ${roundTripMs.toFixed(2)} ms a round trip, first kernel after ${firstMs.toFixed(0)} ms`,
    });
  }
  return findings;
}

const mebibytes = (bytes: number): string =>
  bytes >= 2 ** 30 ? `${Number((bytes / 2 ** 30).toFixed(1))} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`;
