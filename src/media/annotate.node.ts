import path from 'node:path';
import { type Canvas, createCanvas, ImageData } from '@napi-rs/canvas';
import { type Canvas2D, type DrawnFace, drawFaces } from './draw.js';
import { MediaError } from './errors.js';
import { writeAtomically } from './files.node.js';
import { fontsFor } from './fonts.node.js';
import type { Picture } from './picture.js';

export type OutputFormat = 'jpg' | 'png' | 'webp' | 'avif';
export const OUTPUT_FORMATS: readonly OutputFormat[] = ['jpg', 'png', 'webp', 'avif'];

/** The format a file name asks for, undefined where it is not one that can be written. */
export function outputFormatOf(file: string): OutputFormat | undefined {
  const ending = path.extname(file).slice(1).toLowerCase();
  const format = ending === 'jpeg' ? 'jpg' : ending;
  return OUTPUT_FORMATS.find((f) => f === format);
}

/** Draws faces over a copy of the picture and encodes it. */
export async function renderAnnotated(
  picture: Picture,
  faces: readonly DrawnFace[],
  options: { landmarks?: boolean; font?: string; format: OutputFormat },
): Promise<Uint8Array> {
  const { width, height } = picture;
  const canvas = canvasOf(picture);
  const fonts = fontsFor(
    faces.map((f) => f.label ?? ''),
    options.font,
  );
  const context = canvas.getContext('2d');
  // Noto's variable files begin at their thinnest.
  context.fontVariationSettings = '"wght" 500';
  drawFaces(context as unknown as Canvas2D, faces, {
    width,
    height,
    landmarks: options.landmarks,
    fonts,
  });
  return encode(canvas, options.format);
}

/** Encodes a picture. Quality 92 for the lossy formats. */
export async function encodePicture(picture: Picture, format: OutputFormat): Promise<Uint8Array> {
  return encode(canvasOf(picture), format);
}

export async function writePicture(file: string, picture: Picture): Promise<void> {
  const format = outputFormatOf(file);
  if (!format) throw new MediaError(`${file}: pictures are written as ${OUTPUT_FORMATS.join(', ')}`);
  await writeAtomically(file, await encodePicture(picture, format));
}

function canvasOf({ width, height, data }: Picture): Canvas {
  const canvas = createCanvas(width, height);
  const pixels = new Uint8ClampedArray(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  canvas.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

function encode(canvas: Canvas, format: OutputFormat): Promise<Uint8Array> {
  switch (format) {
    case 'jpg':
      return canvas.encode('jpeg', 92);
    case 'png':
      return canvas.encode('png');
    case 'webp':
      return canvas.encode('webp', 92);
    case 'avif':
      return canvas.encode('avif', { quality: 80 });
  }
}
