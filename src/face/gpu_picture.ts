import type { BufferRange, Gpu } from '../gpu/gpu.js';
import type { PictureOperand } from '../kernels/picture/resize.js';
import type { Picture } from '../media/picture.js';

/**
 * A picture uploaded once; detection, cropping and alignment all read it there. A picture larger than one
 * binding (33 megapixels at WebGPU's guaranteed 128 MiB) is halved first, as often as needed: a face that matters is
 * still many times larger than the nets look at. `scale` takes GPU pixels back to those of the file.
 */
export class GpuPicture {
  private constructor(
    private readonly gpu: Gpu,
    readonly operand: PictureOperand<BufferRange>,
    /** Pixels of the original for one pixel on the GPU. */
    readonly scale: number,
  ) {}

  static upload(gpu: Gpu, picture: Picture): GpuPicture {
    let { width, height, data } = picture;
    let scale = 1;
    while (width * height * 4 > gpu.traits.maxBindingBytes) {
      ({ width, height, data } = halve({ width, height, data }));
      scale *= 2;
    }
    const buffer = gpu.createStorage(width * height * 4, 'picture', data);
    return new GpuPicture(
      gpu,
      { ref: { buffer, offset: 0, size: width * height * 4 }, width, height },
      scale,
    );
  }

  get width(): number {
    return this.operand.width;
  }

  get height(): number {
    return this.operand.height;
  }

  destroy(): void {
    this.gpu.destroyBuffer(this.operand.ref.buffer);
  }
}

/** Averages 2×2 pixels; an odd last row or column is dropped. */
export function halve({ width, height, data }: Picture): Picture {
  const w = Math.floor(width / 2);
  const h = Math.floor(height / 2);
  const out = new Uint8Array(w * h * 4);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const from = (2 * y * width + 2 * x) * 4;
      const to = (y * w + x) * 4;
      for (let c = 0; c < 4; c++) {
        out[to + c] =
          (data[from + c] +
            data[from + 4 + c] +
            data[from + width * 4 + c] +
            data[from + width * 4 + 4 + c] +
            2) >>
          2;
      }
    }
  }
  return { width: w, height: h, data: out };
}
