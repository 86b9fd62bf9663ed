import { GpuError } from './errors.js';
import { type Access, type KernelCall, wgslOf } from './kernel_call.js';

/** Compute pipelines by their complete source text; compiled in parallel, each text once. */
export class PipelineCache {
  #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  #layouts = new Map<string, GPUBindGroupLayout>();

  constructor(private readonly device: GPUDevice) {}

  get size(): number {
    return this.#pipelines.size;
  }

  /** @throws GpuError with the WGSL around the offending line when the text does not compile. */
  get(call: KernelCall<unknown>, access: readonly Access[]): Promise<GPUComputePipeline> {
    const source = wgslOf(call, access);
    let pipeline = this.#pipelines.get(source);
    if (!pipeline) {
      pipeline = this.#compile(source, call.label, this.layout(call, access));
      this.#pipelines.set(source, pipeline);
    }
    return pipeline;
  }

  /** Explicit layouts, so that a binding that a variant happens not to use is still bound the same way. */
  layout(call: KernelCall<unknown>, access: readonly Access[]): GPUBindGroupLayout {
    const hasUniforms = Object.keys(call.uniforms).length > 0;
    const key = `${hasUniforms} ${access.join(' ')}`;
    let layout = this.#layouts.get(key);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = access.map((mode, i) => ({
        binding: i + 1,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: mode === 'read' ? 'read-only-storage' : 'storage' },
      }));
      if (hasUniforms) {
        entries.unshift({ binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform' } });
      }
      layout = this.device.createBindGroupLayout({ label: key, entries });
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  async #compile(source: string, label: string, layout: GPUBindGroupLayout): Promise<GPUComputePipeline> {
    // The scope keeps a bad shader from also surfacing as an uncaptured error of the whole device.
    this.device.pushErrorScope('validation');
    const module = this.device.createShaderModule({ code: source, label });
    const scope = this.device.popErrorScope();
    const info = await module.getCompilationInfo();
    await scope;
    const error = info.messages.find((m) => m.type === 'error');
    if (error) throw new GpuError(shaderMessage(label, source, error));
    try {
      return await this.device.createComputePipelineAsync({
        label,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: 'main' },
      });
    } catch (failure) {
      throw new GpuError(`The pipeline of ${label} could not be made: ${(failure as Error).message}`);
    }
  }
}

/** The failed line with two lines of context either side and a caret below the column. */
function shaderMessage(label: string, source: string, message: GPUCompilationMessage): string {
  const lines = source.split('\n');
  const at = message.lineNum;
  const shown: string[] = [];
  for (let i = Math.max(1, at - 2); i <= Math.min(lines.length, at + 2); i++) {
    shown.push(`${i === at ? '>' : ' '} ${String(i).padStart(4)} | ${lines[i - 1]}`);
    if (i === at) shown.push(`         ${' '.repeat(Math.max(0, message.linePos - 1))}^`);
  }
  return `The WGSL of ${label} does not compile, line ${at}: ${message.message}\n${shown.join('\n')}`;
}
