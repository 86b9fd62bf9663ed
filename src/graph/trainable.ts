import { WfrError } from '../gpu/errors.js';
import type { Gpu } from '../gpu/gpu.js';
import { STEP_WORDS, WORD } from '../kernels/optimizer/step_words.js';
import { momentsOf, type OptimizerConfig } from '../kernels/optimizer/update.js';
import { pack, unpack } from '../kernels/packing.js';
import { FlatLayout, type GroupingOptions } from './flat_layout.js';
import type { Graph } from './graph.js';
import type { ParameterValue, ParameterValues } from './parameters.js';

export interface TrainableOptions extends GroupingOptions {
  optimizer: OptimizerConfig;
  /** Keep an exponential moving average of the weights with this decay, 0 … 1, less in the first steps (kernels/optimizer/update.ts). None by default. */
  ema?: number;
}

/** The flat buffers of a set of parameters and their bytes. */
export function flatBuffers(layout: FlatLayout, o: TrainableOptions): Record<string, number> {
  const sizes: Record<string, number> = {
    weights: layout.bytes,
    gradients: layout.gradientBytes,
    step: STEP_WORDS * 4,
  };
  for (let k = 0; k < momentsOf(o.optimizer); k++) sizes[`moment${k}`] = layout.trainedBytes;
  if (o.ema !== undefined) sizes.ema = layout.trainedBytes;
  return sizes;
}

/** What a checkpoint keeps; gradients are made anew each step. */
const isState = (buffer: string): boolean => buffer !== 'gradients';

/** Read back in pieces, so that the staging buffer stays small. */
const PIECE = 1 << 24;

/** The loss scale mixed precision begins with. */
export const INITIAL_LOSS_SCALE = 65536;

/**
 * All parameters of a net on the GPU while it trains: f32 masters, gradients and optimiser state in flat buffers that
 * share one layout. Several compiled steps (batch sizes) may share one.
 */
export class TrainableParameters {
  readonly layout: FlatLayout;
  readonly buffers: ReadonlyMap<string, GPUBuffer>;

  private constructor(
    private readonly gpu: Gpu,
    readonly options: TrainableOptions,
    layout: FlatLayout,
    buffers: ReadonlyMap<string, GPUBuffer>,
  ) {
    this.layout = layout;
    this.buffers = buffers;
  }

  /**
   * @param graph built for training; its parameters are taken.
   * @param values in PyTorch's layouts, by name.
   * @throws WfrError when a value is missing or has another shape than the graph declares.
   */
  static create(
    gpu: Gpu,
    graph: Graph,
    values: ParameterValues,
    options: TrainableOptions,
  ): TrainableParameters {
    gpu.check();
    const layout = new FlatLayout(graph, options);
    const data = new Float32Array(layout.bytes / 4);
    for (const p of layout.parameters.values()) {
      const value = values.get(p.name);
      if (!value)
        throw new WfrError(
          `The weights have no ${p.name} [${p.shape}]: they belong to another net or variant.`,
        );
      if (value.shape.length !== p.shape.length || value.shape.some((n, i) => n !== p.shape[i]))
        throw new WfrError(
          `Weight ${p.name} has shape [${value.shape}], the net needs [${p.shape}]: they belong to another net or variant.`,
        );
      data.set(pack(value.data, p.shape, p.layout, p.flatten).data, p.offset / 4);
    }
    const buffers = new Map<string, GPUBuffer>();
    for (const [name, bytes] of Object.entries(flatBuffers(layout, options)))
      buffers.set(name, gpu.createStorage(bytes, `trainable/${name}`));
    if (data.length > 0) gpu.write(buffers.get('weights')!, 0, data);
    const ema = buffers.get('ema');
    if (ema && layout.trainedBytes > 0) gpu.write(ema, 0, data.subarray(0, layout.trainedBytes / 4));
    const words = new Uint32Array(STEP_WORDS);
    new Float32Array(words.buffer)[WORD.lossScale] = 1;
    words[WORD.finite] = 1;
    gpu.write(buffers.get('step')!, 0, words);
    return new TrainableParameters(gpu, options, layout, buffers);
  }

  #hasScale = false;

  /** Gives the factor on the loss its first value, unless it has one, from here or from a snapshot. */
  beginLossScale(value: number): void {
    if (this.#hasScale) return;
    this.#hasScale = true;
    this.gpu.write(this.buffers.get('step')!, WORD.lossScale * 4, new Float32Array([value]));
  }

  /** Parameters in PyTorch's layouts by name; with `ema` the averaged weights, beside the same running statistics. */
  async read(which: 'weights' | 'ema' = 'weights'): Promise<Map<string, ParameterValue>> {
    const data = new Float32Array(await this.#readBuffer('weights'));
    if (which === 'ema') {
      if (!this.buffers.has('ema'))
        throw new WfrError('No average of the weights is kept: train with the option ema.');
      data.set(new Float32Array(await this.#readBuffer('ema')).subarray(0, this.layout.trainedBytes / 4));
    }
    const out = new Map<string, ParameterValue>();
    for (const p of this.layout.parameters.values()) {
      const part = data.subarray(p.offset / 4, (p.offset + p.bytes) / 4);
      out.set(p.name, { shape: p.shape, data: unpack(part, p.shape, p.layout, p.flatten) });
    }
    return out;
  }

  /** The gradients of the last step by name, PyTorch's layouts, times the loss scale; trained parameters only. */
  async readGradients(): Promise<Map<string, ParameterValue>> {
    const data = new Float32Array(await this.#readBuffer('gradients'));
    const out = new Map<string, ParameterValue>();
    for (const p of this.layout.parameters.values()) {
      if (p.group === 'statistic' || p.group === 'fixed') continue;
      const part = data.subarray(p.offset / 4, (p.offset + p.bytes) / 4);
      out.set(p.name, { shape: p.shape, data: unpack(part, p.shape, p.layout, p.flatten) });
    }
    return out;
  }

  /** Everything that the next step depends on, bit for bit: weights, moments, averages, step words. */
  async snapshot(): Promise<Record<string, ArrayBuffer>> {
    const out: Record<string, ArrayBuffer> = {};
    for (const name of this.buffers.keys()) if (isState(name)) out[name] = await this.#readBuffer(name);
    return out;
  }

  /** @throws WfrError when the snapshot is of other parameters or another optimiser. */
  restore(snapshot: Readonly<Record<string, ArrayBuffer>>): void {
    for (const [name, buffer] of this.buffers) {
      if (!isState(name)) continue;
      const bytes = snapshot[name];
      if (!bytes || bytes.byteLength !== buffer.size)
        throw new WfrError(
          `The snapshot's ${name} has ${bytes?.byteLength ?? 'no'} bytes, ${buffer.size} are needed: it is of another net, variant or optimiser.`,
        );
    }
    this.#hasScale = true;
    for (const [name, buffer] of this.buffers)
      if (isState(name)) this.gpu.write(buffer, 0, new Uint8Array(snapshot[name]));
  }

  async #readBuffer(name: string): Promise<ArrayBuffer> {
    const buffer = this.buffers.get(name)!;
    const out = new Uint8Array(buffer.size);
    for (let at = 0; at < buffer.size; at += PIECE)
      out.set(new Uint8Array(await this.gpu.read(buffer, at, Math.min(PIECE, buffer.size - at))), at);
    return out.buffer;
  }

  /** Of all flat buffers. */
  get bytes(): number {
    let sum = 0;
    for (const b of this.buffers.values()) sum += b.size;
    return sum;
  }

  destroy(): void {
    for (const b of this.buffers.values()) this.gpu.destroyBuffer(b);
  }
}
