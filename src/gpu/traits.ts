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
}

export function traitsOf(adapterInfo: GPUAdapterInfo, device: GPUDevice): DeviceTraits {
  const info = adapterInfo as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
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
  };
}
