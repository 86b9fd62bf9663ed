/**
 * Pictures that a page or worker holds (`<img>`, canvas, ImageBitmap, VideoFrame, `<video>`) → one u32 a pixel in a
 * storage buffer, R in the lowest byte, row by row, the layout that every picture kernel reads.
 *
 * Video is imported as an external texture, which on most systems copies nothing; the rest is copied on the GPU
 * into a texture, and a small kernel packs either. Only a browser that can do neither with a source makes the
 * detour through a 2D canvas and the CPU.
 */
import { GpuError } from './errors.js';
import type { Gpu } from './gpu.js';

export type PagePicture =
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  | VideoFrame;

type TextureKind = 'texture_2d<f32>' | 'texture_external';

const TILE = 8;

const wgsl = (kind: TextureKind): string => `
@group(0) @binding(0) var source: ${kind};
@group(0) @binding(1) var<storage, read_write> picture: array<u32>;

@compute @workgroup_size(${TILE}, ${TILE})
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
  let size = textureDimensions(source);
  if (at.x >= size.x || at.y >= size.y) { return; }
  picture[at.y * size.x + at.x] = pack4x8unorm(textureLoad(source, at.xy${kind === 'texture_external' ? '' : ', 0'}));
}`;

const pipelines = new WeakMap<Gpu, Map<TextureKind, Promise<GPUComputePipeline>>>();

function pipelineOf(gpu: Gpu, kind: TextureKind): Promise<GPUComputePipeline> {
  const own = pipelines.get(gpu) ?? new Map<TextureKind, Promise<GPUComputePipeline>>();
  pipelines.set(gpu, own);
  let pipeline = own.get(kind);
  if (!pipeline) {
    const label = `page picture ${kind}`;
    const module = gpu.device.createShaderModule({ code: wgsl(kind), label });
    pipeline = gpu.device.createComputePipelineAsync({ label, layout: 'auto', compute: { module } });
    own.set(kind, pipeline);
  }
  return pipeline;
}

// A worker has no elements, an old browser no VideoFrame: the constructors may be missing.
const isVideo = (p: PagePicture): p is HTMLVideoElement =>
  typeof HTMLVideoElement !== 'undefined' && p instanceof HTMLVideoElement;
const isFrame = (p: PagePicture): p is VideoFrame =>
  typeof VideoFrame !== 'undefined' && p instanceof VideoFrame;
const isImage = (p: PagePicture): p is HTMLImageElement =>
  typeof HTMLImageElement !== 'undefined' && p instanceof HTMLImageElement;

/**
 * Size in pixels as it is looked at.
 * @throws GpuError when there is no picture yet (an image that has not loaded, a video without a frame) or no more
 *   (a closed frame or bitmap).
 */
export function pagePictureSize(picture: PagePicture): { width: number; height: number } {
  let size: { width: number; height: number };
  if (isVideo(picture)) {
    if (picture.readyState < HTMLMediaElement.HAVE_CURRENT_DATA)
      throw new GpuError('The video has no frame yet: wait for its loadeddata event.');
    size = { width: picture.videoWidth, height: picture.videoHeight };
  } else if (isFrame(picture)) size = { width: picture.displayWidth, height: picture.displayHeight };
  else if (isImage(picture)) size = { width: picture.naturalWidth, height: picture.naturalHeight };
  else size = { width: picture.width, height: picture.height };
  if (!(size.width > 0 && size.height > 0)) {
    throw new GpuError(
      `The ${picture.constructor.name} has no pixels: an image must have loaded (await image.decode()), a bitmap or frame must not be closed yet, a canvas must have a size.`,
    );
  }
  return size;
}

/**
 * Fills `target` (width·height u32) with the picture.
 * @throws GpuError when the page may not read the picture (another site's, without CORS).
 */
export async function importPagePicture(gpu: Gpu, picture: PagePicture, target: GPUBuffer): Promise<void> {
  const external = (isVideo(picture) || isFrame(picture)) && 'importExternalTexture' in gpu.device;
  const kind = external ? 'texture_external' : 'texture_2d<f32>';
  const pipeline = await pipelineOf(gpu, kind);
  gpu.check();
  const { width, height } = pagePictureSize(picture);
  let texture: GPUTexture | undefined;
  try {
    let resource: GPUBindingResource;
    // An external texture expires with this task: it is imported, bound and submitted without an await between.
    if (external) resource = gpu.device.importExternalTexture({ source: picture, label: 'video frame' });
    else {
      texture = copyToTexture(gpu.device, picture, width, height);
      resource = texture.createView();
    }
    const group = gpu.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource },
        { binding: 1, resource: { buffer: target } },
      ],
    });
    gpu.submit((encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(Math.ceil(width / TILE), Math.ceil(height / TILE));
      pass.end();
    });
  } catch (error) {
    if ((error as Error).name === 'SecurityError') throw forbidden();
    gpu.write(target, 0, pixelsOf(picture, width, height));
  } finally {
    texture?.destroy();
  }
}

function copyToTexture(device: GPUDevice, picture: PagePicture, width: number, height: number): GPUTexture {
  const texture = device.createTexture({
    label: 'page picture',
    size: [width, height],
    format: 'rgba8unorm',
    usage: GPUTextureUsage.COPY_DST | GPUTextureUsage.RENDER_ATTACHMENT | GPUTextureUsage.TEXTURE_BINDING,
  });
  try {
    device.queue.copyExternalImageToTexture({ source: picture }, { texture }, [width, height]);
  } catch (error) {
    texture.destroy();
    throw error;
  }
  return texture;
}

/** The detour: RGBA bytes by way of a 2D canvas. */
function pixelsOf(picture: PagePicture, width: number, height: number): Uint8ClampedArray {
  const canvas =
    typeof OffscreenCanvas !== 'undefined'
      ? new OffscreenCanvas(width, height)
      : Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true }) as
    | CanvasRenderingContext2D
    | OffscreenCanvasRenderingContext2D
    | null;
  if (!context) throw new GpuError(`No 2D canvas of ${width}×${height} could be made.`);
  try {
    context.drawImage(picture, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  } catch (error) {
    if ((error as Error).name === 'SecurityError') throw forbidden();
    throw new GpuError(`The picture could not be read: ${(error as Error).message}`);
  }
}

const forbidden = (): GpuError =>
  new GpuError(
    'The browser does not let this page read the picture: it comes from another site. Set crossorigin="anonymous" on the element, and the other site must allow it (Access-Control-Allow-Origin).',
  );
