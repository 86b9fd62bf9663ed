import { GpuError } from './errors.js';

/** What a kernel's plan may know about the device when it picks a variant and a tile. */
export interface DeviceTraits {
  /** `cpu`: a software driver (lavapipe, SwiftShader), where lanes are SIMD lanes and a workgroup is one core. */
  readonly kind: 'cpu' | 'gpu';
  readonly vendor: string;
  readonly subgroups: boolean;
  /** Lanes of a subgroup when every pipeline has the same, else 0. */
  readonly subgroupSize: number;
  readonly shaderF16: boolean;
  readonly maxInvocations: number;
  readonly maxWorkgroupBytes: number;
  readonly maxBindingBytes: number;
  readonly maxStorageBuffers: number;
  /** What one operation of the matrix units multiplies, f16 with sums in f32; only with `GpuOptions.matrixUnits`. */
  readonly subgroupMatrix?: MatrixShape;
  /** What was measured on this device (`GpuOptions.tuning`); without it plans are as for a large card. */
  readonly tuning?: Tuning;
}

/** Sides of the square tiles in which hardware GPUs make products in f32. */
export const TILE_SIDES = [32, 64, 128] as const;
export type TileSide = (typeof TILE_SIDES)[number];

/** What the best plans of a hardware GPU depend on and only measuring tells: `tuneProducts` does. */
export interface Tuning {
  /** Side of the tiles of products that have enough of them. */
  readonly side: TileSide;
  /** Workgroups that fill the device, 1 to 4096: a product with fewer tiles is made in parts. */
  readonly workgroups: number;
}

/** What somebody gave, short and on one line: it may come from a file. */
const shown = (value: unknown): string =>
  typeof value === 'number' ? String(value) : value === undefined ? 'nothing' : `a ${typeof value}`;

/**
 * What of a tuning counts; nothing of nothing.
 * @throws GpuError when it is none.
 */
export function checkTuning(tuning: Tuning | null | undefined): Tuning | undefined {
  if (tuning === undefined || tuning === null) return undefined;
  const { side, workgroups } = Object(tuning) as Tuning;
  const isSane = Number.isInteger(workgroups) && workgroups >= 1 && workgroups <= 4096;
  if (TILE_SIDES.includes(side) && isSane) return { side, workgroups };
  throw new GpuError(
    `tuning with side ${shown(side)} and workgroups ${shown(workgroups)}: side must be ${TILE_SIDES.join(', ')}, workgroups a whole number from 1 to 4096, as tuneProducts() gives them.`,
  );
}

/** m × k times k × n. */
export interface MatrixShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

export const MATRIX_FEATURE = 'chromium-experimental-subgroup-matrix' as GPUFeatureName;

interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/**
 * The largest shape of those that the kernels know. They count on subgroups of 32, and are written for sides of 8 or 16.
 */
function matrixShapeOf(info: AdapterInfo, device: GPUDevice): MatrixShape | undefined {
  const isKnown =
    device.features.has(MATRIX_FEATURE) &&
    device.features.has('shader-f16') &&
    info.subgroupMinSize === 32 &&
    info.subgroupMaxSize === 32;
  if (!isKnown) return undefined;
  const shapes = [...(info.subgroupMatrixConfigs ?? [])]
    .filter((c) => c.componentType === 'f16' && c.resultComponentType === 'f32')
    .filter((c) => [c.M, c.N, c.K].every((size) => size === 8 || size === 16) && c.M * c.N >= 128)
    .map((c) => ({ m: c.M, n: c.N, k: c.K }));
  return shapes.sort((a, b) => b.m * b.n * b.k - a.m * a.n * a.k)[0];
}

type AdapterInfo = GPUAdapterInfo & {
  subgroupMinSize?: number;
  subgroupMaxSize?: number;
  subgroupMatrixConfigs?: Iterable<MatrixConfig>;
};

export function traitsOf(adapterInfo: GPUAdapterInfo, device: GPUDevice, tuning?: Tuning): DeviceTraits {
  const info = adapterInfo as AdapterInfo;
  const names = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  const subgroups = device.features.has('subgroups' as GPUFeatureName);
  const sameSize = info.subgroupMinSize !== undefined && info.subgroupMinSize === info.subgroupMaxSize;
  return {
    kind: /llvmpipe|lavapipe|swiftshader|software|basic render/.test(names) ? 'cpu' : 'gpu',
    vendor: info.vendor,
    subgroups,
    subgroupSize: subgroups && sameSize ? info.subgroupMinSize! : 0,
    shaderF16: device.features.has('shader-f16'),
    maxInvocations: device.limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupBytes: device.limits.maxComputeWorkgroupStorageSize,
    maxBindingBytes: Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize),
    maxStorageBuffers: device.limits.maxStorageBuffersPerShaderStage,
    subgroupMatrix: matrixShapeOf(info, device),
    tuning,
  };
}
