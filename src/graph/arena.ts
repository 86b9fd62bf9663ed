import type { Gpu } from '../gpu/gpu.js';

/**
 * Scratch memory shared by all compiled sizes of a net. A queue runs its submissions in order, so two
 * executables never need their intermediates at the same time. When a larger size comes, later sizes share
 * the larger buffer and the smaller one goes with its last user.
 */
export class Arena {
  #current: GPUBuffer | undefined;
  readonly #users = new Map<GPUBuffer, number>();

  constructor(
    private readonly gpu: Gpu,
    private readonly label: string,
  ) {}

  acquire(bytes: number): GPUBuffer {
    if (!this.#current || this.#current.size < bytes) {
      const outgrown = this.#current;
      this.#current = this.gpu.createStorage(bytes, this.label);
      this.#users.set(this.#current, 0);
      if (outgrown) this.#destroyIfUnused(outgrown);
    }
    this.#users.set(this.#current, this.#users.get(this.#current)! + 1);
    return this.#current;
  }

  /** Whether a larger buffer has taken this one's place for later sizes. */
  isOutgrown(buffer: GPUBuffer): boolean {
    return buffer !== this.#current;
  }

  release(buffer: GPUBuffer): void {
    this.#users.set(buffer, this.#users.get(buffer)! - 1);
    this.#destroyIfUnused(buffer);
  }

  #destroyIfUnused(buffer: GPUBuffer): void {
    if (this.#users.get(buffer)! > 0) return;
    this.#users.delete(buffer);
    if (this.#current === buffer) this.#current = undefined;
    this.gpu.destroyBuffer(buffer);
  }
}
