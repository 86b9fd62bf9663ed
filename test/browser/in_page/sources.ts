import { GpuPicture, type PictureSource } from '../../../src/face/gpu_picture.js';
import type { Gpu } from '../../../src/gpu/gpu.js';
import { sharedGpu } from './shared.js';

/** Odd sizes, opaque, flat areas of 8 pixels with sharp edges: any shift, turn or mirroring shows. */
function pattern(width: number, height: number): ImageData {
  const data = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [i, j] = [x >> 3, y >> 3];
      data.data.set(
        [(37 * i + 11 * j) % 256, (53 * j + 90 * i) % 256, (17 * i * j + 40) % 256, 255],
        (y * width + x) * 4,
      );
    }
  }
  return data;
}

function canvasOf(data: ImageData): OffscreenCanvas {
  const canvas = new OffscreenCanvas(data.width, data.height);
  canvas.getContext('2d')!.putImageData(data, 0, 0);
  return canvas;
}

async function imageOf(url: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

async function elementOf(data: ImageData): Promise<HTMLImageElement> {
  const url = URL.createObjectURL(await canvasOf(data).convertToBlob());
  const image = await imageOf(url);
  URL.revokeObjectURL(url);
  return image;
}

/** A video whose only frame is the picture, by way of a canvas stream: no codec in between. */
async function videoOf(data: ImageData): Promise<HTMLVideoElement> {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width: data.width, height: data.height });
  const context = canvas.getContext('2d')!;
  const video = document.createElement('video');
  video.muted = true;
  video.srcObject = canvas.captureStream(30);
  const drawn = setInterval(() => context.putImageData(data, 0, 0), 30);
  await video.play();
  if (video.readyState < 2) await new Promise((resolve) => video.addEventListener('loadeddata', resolve));
  await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
  clearInterval(drawn);
  return video;
}

const MAKERS: Record<string, (data: ImageData) => PictureSource | Promise<PictureSource>> = {
  ImageData: (data) => data,
  OffscreenCanvas: canvasOf,
  ImageBitmap: (data) => createImageBitmap(data),
  VideoFrame: (data) => new VideoFrame(canvasOf(data), { timestamp: 0 }),
  HTMLCanvasElement: (data) => {
    const canvas = Object.assign(document.createElement('canvas'), {
      width: data.width,
      height: data.height,
    });
    canvas.getContext('2d')!.putImageData(data, 0, 0);
    return canvas;
  },
  HTMLImageElement: elementOf,
  HTMLVideoElement: videoOf,
};

async function pixels(gpu: Gpu, source: PictureSource) {
  const picture = await GpuPicture.from(gpu, source);
  const { ref, width, height } = picture.operand;
  const bytes = new Uint8Array(await gpu.read(ref.buffer, 0, ref.size));
  picture.destroy();
  return { bytes, width, height, scale: picture.scale };
}

/** Size on the GPU, largest difference from the picture drawn, and which WebGPU calls carried it there. */
export async function picture(kind: string) {
  const gpu = await sharedGpu();
  const data = pattern(61, 43);
  const source = await MAKERS[kind](data);
  const used: string[] = [];
  const { device } = gpu;
  const watched = [
    [device, 'importExternalTexture'],
    [device.queue, 'copyExternalImageToTexture'],
    [device.queue, 'writeBuffer'],
  ] as const;
  const restore = watched.map(([object, name]) => {
    const own = object as unknown as Record<string, (...args: unknown[]) => unknown>;
    const original = own[name];
    own[name] = (...args) => {
      used.push(name);
      return original.apply(object, args);
    };
    return () => Reflect.deleteProperty(object, name);
  });
  const before = { ...gpu.stats };
  const { bytes, width, height } = await pixels(gpu, source);
  for (const undo of restore) undo();
  gpu.check();
  let difference = 0;
  // The buffer is a multiple of four pixels.
  for (let i = 0; i < data.data.length; i++)
    if (i % 4 < 3) difference = Math.max(difference, Math.abs(bytes[i] - data.data[i]));
  return { width, height, difference, used, kept: gpu.stats.buffers - before.buffers };
}

/** A JPEG by URL as an element and as a bitmap: width, height and the colours of the four corners. */
export async function corners(url: string, how: 'element' | 'bitmap') {
  const source =
    how === 'element' ? await imageOf(url) : await createImageBitmap(await (await fetch(url)).blob());
  const { bytes, width, height } = await pixels(await sharedGpu(), source);
  const at = (x: number, y: number) => [...bytes.subarray((y * width + x) * 4, (y * width + x) * 4 + 3)];
  return {
    width,
    height,
    corners: [at(2, 2), at(width - 3, 2), at(2, height - 3), at(width - 3, height - 3)],
  };
}

/** A picture larger than the device takes at once. */
export async function large() {
  const gpu = await sharedGpu();
  const limit = gpu.device.limits.maxTextureDimension2D;
  const canvas = new OffscreenCanvas(limit + 2, 4);
  const context = canvas.getContext('2d')!;
  context.fillStyle = '#204080';
  context.fillRect(0, 0, canvas.width, canvas.height);
  const { bytes, width, height, scale } = await pixels(gpu, canvas);
  return { width, height, scale, limit, colour: [...bytes.subarray(0, 3)] };
}

/** What is said where there is nothing to see. */
export async function refused(): Promise<Record<string, string>> {
  const gpu = await sharedGpu();
  const message = async (source: PictureSource) =>
    GpuPicture.from(gpu, source).then(
      () => 'accepted',
      (error: Error) => `${error.name}: ${error.message}`,
    );
  const closed = await createImageBitmap(pattern(5, 5));
  closed.close();
  const out: Record<string, string> = { closed: await message(closed) };
  if (typeof document !== 'undefined') {
    out.image = await message(new Image());
    out.video = await message(document.createElement('video'));
  }
  return out;
}
