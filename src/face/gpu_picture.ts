import type { BufferRange, Gpu } from '../gpu/gpu.js';
import { importPagePicture, type PagePicture, pagePictureSize } from '../gpu/page_picture.js';
import { Program } from '../gpu/program.js';
import type { PictureOperand } from '../kernels/picture/resize.js';
import { yuvToPicture } from '../kernels/picture/yuv.js';
import type { Picture } from '../media/picture.js';
import {
  displayed,
  type I420Frame,
  type Rotation,
  type YuvMatrix,
  yuvCoefficients,
} from '../media/video/i420.js';
import { FaceError } from './errors.js';

/** Plain pixels (`ImageData` is that too) or whatever else a page keeps pictures in. */
export type PictureSource = Picture | PagePicture;

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
    while (bytesOf(width, height) > gpu.traits.maxBindingBytes) {
      ({ width, height, data } = halve({ width, height, data }));
      scale *= 2;
    }
    const size = bytesOf(width, height);
    const buffer = gpu.createStorage(size, 'picture', data);
    return new GpuPicture(gpu, { ref: { buffer, offset: 0, size }, width, height }, scale);
  }

  /**
   * A video frame, uploaded as it is and turned into an upright picture on the GPU.
   * @throws FaceError when the frame is larger than the device's largest binding.
   */
  static async fromFrame(
    gpu: Gpu,
    frame: I420Frame,
    matrix: YuvMatrix,
    rotation: Rotation,
  ): Promise<GpuPicture> {
    const { width, height } = displayed(frame, rotation);
    const size = bytesOf(width, height);
    if (size > gpu.traits.maxBindingBytes)
      throw new FaceError(`Frames of ${frame.width}×${frame.height} are too large for this device.`);
    const bytes = Math.ceil(frame.data.byteLength / 4) * 4;
    const yuv = { buffer: gpu.createStorage(bytes, 'frame'), offset: 0, size: bytes };
    const ref = { buffer: gpu.createStorage(size, 'picture'), offset: 0, size };
    // Half a word is left over where width·height is not a multiple of eight; writes are whole words.
    const whole = frame.data.byteLength & ~3;
    gpu.write(yuv.buffer, 0, frame.data.subarray(0, whole));
    if (whole < bytes) {
      const rest = new Uint8Array(4);
      rest.set(frame.data.subarray(whole));
      gpu.write(yuv.buffer, whole, rest);
    }
    try {
      const calls = yuvToPicture(yuv, ref, frame, rotation, yuvCoefficients(matrix));
      const program = await Program.create(gpu, calls);
      // What reads the picture comes after this in the queue, so nobody need wait; buffers may go once submitted.
      gpu.submit((encoder) => program.record(encoder));
      program.destroy();
      return new GpuPicture(gpu, { ref, width, height }, 1);
    } catch (error) {
      gpu.destroyBuffer(ref.buffer);
      throw error;
    } finally {
      gpu.destroyBuffer(yuv.buffer);
    }
  }

  /**
   * The same from anything that holds a picture. What a page holds goes to the GPU without a detour through the
   * CPU where the browser allows it. A video's current frame, a `VideoFrame` or a bitmap must stay open until the
   * promise is resolved.
   * @throws GpuError when the source has no pixels yet or the page may not read it.
   */
  static async from(gpu: Gpu, source: PictureSource): Promise<GpuPicture> {
    if ('data' in source) return GpuPicture.upload(gpu, source);
    const whole = pagePictureSize(source);
    const largest = gpu.device.limits.maxTextureDimension2D;
    let scale = 1;
    let { width, height } = whole;
    while (Math.max(width, height) > largest || bytesOf(width, height) > gpu.traits.maxBindingBytes) {
      scale *= 2;
      width = Math.floor(whole.width / scale);
      height = Math.floor(whole.height / scale);
    }
    const size = bytesOf(width, height);
    const buffer = gpu.createStorage(size, 'picture');
    try {
      if (scale === 1) await importPagePicture(gpu, source, buffer);
      else {
        const options: ImageBitmapOptions = {
          resizeWidth: width,
          resizeHeight: height,
          resizeQuality: 'medium',
        };
        // As in `halve`, what is left over at the right and lower border is dropped.
        const smaller = await createImageBitmap(source, 0, 0, width * scale, height * scale, options);
        await importPagePicture(gpu, smaller, buffer);
        smaller.close();
      }
    } catch (error) {
      gpu.destroyBuffer(buffer);
      throw error;
    }
    return new GpuPicture(gpu, { ref: { buffer, offset: 0, size }, width, height }, scale);
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

/** Kernels read four pixels at a time. */
const bytesOf = (width: number, height: number): number => Math.ceil((width * height) / 4) * 16;

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
