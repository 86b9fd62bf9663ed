import type { Gpu } from '../gpu/gpu.js';
import { Arena } from './arena.js';
import { type CompileOptions, compile, type Executable } from './executable.js';
import type { Graph } from './graph.js';
import { ParameterStore, type ParameterValues } from './parameters.js';

export interface ModelOptions extends Omit<CompileOptions, 'arena'> {
  /** How many compiled sizes to keep; the least recently used goes first. Default 24. */
  cachedSizes?: number;
}

/**
 * A net with its weights on one device, compiled for each input size on first use. Pipelines are shared by
 * all sizes, so a new size costs buffers and bind groups, not shader compilation.
 */
export class Model {
  readonly #store: ParameterStore;
  readonly #arena: Arena;
  readonly #sizes = new Map<string, Promise<Executable>>();

  constructor(
    readonly gpu: Gpu,
    /** Builds the net's graph for an input shape [N, H, W, C]. */
    private readonly build: (shape: readonly number[]) => Graph,
    private readonly values: ParameterValues,
    private readonly options: ModelOptions = {},
  ) {
    this.#store = new ParameterStore(gpu, values);
    this.#arena = new Arena(gpu, 'arena');
  }

  async at(shape: readonly number[]): Promise<Executable> {
    const key = shape.join('×');
    let executable = this.#sizes.get(key);
    if (executable) this.#sizes.delete(key);
    else {
      executable = this.#compile(shape);
      // A size that failed must not be remembered, nor may its rejection go unhandled here: the caller gets it.
      executable.catch(() => this.#sizes.delete(key));
    }
    this.#sizes.set(key, executable);
    const cap = this.options.cachedSizes ?? 24;
    while (this.#sizes.size > cap) {
      const [oldest, evicted] = this.#sizes.entries().next().value!;
      this.#sizes.delete(oldest);
      (await evicted).destroy();
    }
    return executable;
  }

  /**
   * Forgets sizes whose scratch memory a larger size has outgrown: compiled again when next asked for, they share the
   * larger one. Only while no executable is in use.
   */
  async trim(): Promise<void> {
    for (const [key, size] of [...this.#sizes]) {
      const executable = await size;
      if (!executable.isOutgrown()) continue;
      this.#sizes.delete(key);
      executable.destroy();
    }
  }

  #compile(shape: readonly number[]): Promise<Executable> {
    return compile(this.gpu, this.build(shape), this.#store, this.values, {
      ...this.options,
      arena: this.#arena,
    });
  }

  get parameterBytes(): number {
    return this.#store.bytes;
  }

  async destroy(): Promise<void> {
    for (const executable of this.#sizes.values()) (await executable).destroy();
    this.#sizes.clear();
    this.#store.destroy();
  }
}
