import { WfrError } from '../gpu/errors.js';
import type { BufferRange, Gpu } from '../gpu/gpu.js';
import {
  type FlattenedMap,
  type Packing,
  type ParameterLayout,
  pack,
  packParameter,
} from '../kernels/packing.js';
import type { Node } from './graph.js';

/** A weight in PyTorch's layout. */
export interface ParameterValue {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Weights by state-dict name. Values that a pass derives (folded batch norm) are computed when first asked for. */
export type ParameterValues = { get(name: string): ParameterValue | undefined };

/**
 * Weights on the GPU, uploaded once a (name, packing) and shared by every executable of a net, whatever its
 * batch or picture size.
 */
export class ParameterStore {
  #buffers = new Map<string, BufferRange>();
  #ranges = new Set<BufferRange>();

  constructor(
    private readonly gpu: Gpu,
    private readonly values: ParameterValues,
  ) {}

  /** @throws WfrError when the weight is missing or has another shape than the net declares. */
  get(
    name: string,
    shape: readonly number[],
    layout: ParameterLayout,
    packing: Packing,
    flatten?: FlattenedMap,
    derived?: ParameterValues,
  ): BufferRange {
    return this.#upload(`${name} ${packing}`, () =>
      packParameter(this.#value(name, shape, derived), shape, layout, packing, flatten),
    );
  }

  /**
   * Vectors and depthwise filters of as many channels in f32, one after the other: rows of one matrix.
   * @throws as `get` does.
   */
  rows(
    parts: readonly Pick<Node, 'name' | 'shape' | 'attributes'>[],
    derived?: ParameterValues,
  ): BufferRange {
    return this.#upload(parts.map((p) => p.name).join(' | '), () =>
      Float32Array.from(
        parts.flatMap(({ name, shape, attributes }) => [
          ...pack(this.#value(name!, shape, derived), shape, attributes.layout!).data,
        ]),
      ),
    );
  }

  #value(name: string, shape: readonly number[], derived?: ParameterValues): Float32Array {
    const value = derived?.get(name) ?? this.values.get(name);
    if (!value)
      throw new WfrError(`The weights have no ${name} [${shape}]: they belong to another net or variant.`);
    if (value.shape.length !== shape.length || value.shape.some((n, i) => n !== shape[i])) {
      throw new WfrError(
        `Weight ${name} has shape [${value.shape}], the net needs [${shape}]: they belong to another net or variant.`,
      );
    }
    return value.data;
  }

  #upload(key: string, make: () => Float32Array | Uint16Array): BufferRange {
    const known = this.#buffers.get(key);
    if (known) return known;
    const bytes = make();
    const buffer = this.gpu.createStorage(bytes.byteLength, key, bytes);
    const range: BufferRange = { buffer, offset: 0, size: buffer.size };
    this.#buffers.set(key, range);
    this.#ranges.add(range);
    return range;
  }

  has(range: BufferRange): boolean {
    return this.#ranges.has(range);
  }

  get bytes(): number {
    let sum = 0;
    for (const r of this.#ranges) sum += r.size;
    return sum;
  }

  destroy(): void {
    for (const r of this.#ranges) this.gpu.destroyBuffer(r.buffer);
    this.#buffers.clear();
    this.#ranges.clear();
  }
}
