import type { BufferRange, Gpu } from './gpu.js';

/**
 * A place to lay out values that go to the device again and again: memory that the device copies from. `Gpu.write` copies
 * into such memory first, which for a picture takes as long as laying it out.
 */
export class Upload {
  readonly #buffer: GPUBuffer;
  #values: Float32Array | undefined;

  constructor(
    private readonly gpu: Gpu,
    private readonly target: BufferRange,
    label: string,
  ) {
    const usage = GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC;
    this.#buffer = gpu.createBuffer(target.size, usage, label, true);
    this.#take();
  }

  /** To be filled, as they were filled last; undefined while the device may still read them. */
  get values(): Float32Array | undefined {
    return this.#values;
  }

  /** Records the copy of the values to their place. They are out of reach until `submitted` brings them back. */
  record(encoder: GPUCommandEncoder): void {
    this.#values = undefined;
    this.#buffer.unmap();
    encoder.copyBufferToBuffer(this.#buffer, 0, this.target.buffer, this.target.offset, this.target.size);
  }

  /** To be called once what was recorded is submitted; where nothing was, it does nothing. */
  submitted(): void {
    if (this.#values !== undefined) return;
    // It fails where the device is lost or the buffer destroyed: whoever waits for the results hears of that.
    this.#buffer.mapAsync(GPUMapMode.WRITE).then(
      () => this.#take(),
      () => {},
    );
  }

  #take(): void {
    this.#values = new Float32Array(this.#buffer.getMappedRange(0, this.target.size));
  }

  destroy(): void {
    this.#values = undefined;
    this.gpu.destroyBuffer(this.#buffer);
  }
}
