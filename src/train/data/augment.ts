/**
 * Random changes of an aligned face. Each kind draws from a stream of its own, so that turning one on leaves the
 * others as they were. Geometry and the change of size are one resampling of the source, everything else works on
 * its result.
 *
 *   mirror   left and right swapped
 *   affine   turned, scaled and shifted about the centre
 *   crop     a window of the picture, enlarged
 *   lowres   made smaller and larger again
 *   colour   brightness, contrast, saturation
 *   gray     without colour
 *   blur     Gaussian
 *   jpeg     quantised as a JPEG encoder does (jpeg.ts)
 *   erase    a rectangle of noise (Zhong, Zheng, Kang, Li & Yang 2020)
 *   occlude  the eyes or the mouth covered by one colour
 */
import { WfrError } from '../../gpu/errors.js';
import type { Random } from '../random.js';
import { jpegArtefacts } from './jpeg.js';
import { blur, resize } from './resample.js';

export const AUGMENTATIONS = [
  'mirror',
  'affine',
  'crop',
  'lowres',
  'colour',
  'gray',
  'blur',
  'jpeg',
  'erase',
  'occlude',
] as const;
export type AugmentationName = (typeof AUGMENTATIONS)[number];

/** How likely each kind is. */
export type Augmentation = Partial<Record<AugmentationName, number>>;

const PROBABILITY: Record<AugmentationName, number> = {
  mirror: 0.5,
  affine: 0.8,
  crop: 0.3,
  lowres: 0.2,
  colour: 0.8,
  gray: 0.1,
  blur: 0.15,
  jpeg: 0.15,
  erase: 0.25,
  occlude: 0.1,
};
const DEGREES = 12;
const ZOOM = 0.1;
const SHIFT = 0.06;

/**
 * `none`, `all`, or names parted by commas, each with a probability if the usual one does not suit:
 * `mirror,affine,erase=0.1`.
 * @throws WfrError for an unknown name or a probability outside 0 … 1.
 */
export function parseAugmentation(text: string): Augmentation {
  if (text === 'none') return {};
  if (text === 'all') return { ...PROBABILITY };
  const chosen: Augmentation = {};
  for (const part of text.split(',')) {
    const [name, value] = part.trim().split('=') as [AugmentationName, string | undefined];
    if (!AUGMENTATIONS.includes(name))
      throw new WfrError(
        `"${name}" is no augmentation: choose from ${AUGMENTATIONS.join(', ')}, or none or all.`,
      );
    const probability = value === undefined ? PROBABILITY[name] : Number(value);
    if (!(probability >= 0 && probability <= 1))
      throw new WfrError(`The probability of ${name} is "${value}": give a number from 0 to 1.`);
    chosen[name] = probability;
  }
  return chosen;
}

/** value = (byte − mean) · scale */
export interface Normalisation {
  mean: number;
  scale: number;
}

/**
 * @param source RGB bytes, side × side × 3.
 * @param out where size × size × 3 normalised values are written.
 */
export function augment(
  source: Uint8Array,
  side: number,
  out: Float32Array,
  size: number,
  augmentation: Augmentation,
  random: Random,
  { mean, scale }: Normalisation,
): void {
  const draw = (name: AugmentationName): Random | undefined => {
    const stream = random.split(name);
    return stream.chance(augmentation[name] ?? 0) ? stream : undefined;
  };
  let pixels = transformed(source, side, size, draw('mirror') !== undefined, draw('affine'), draw('crop'));
  const lowres = draw('lowres');
  if (lowres) {
    const small = Math.max(4, Math.round(size / lowres.between(1.5, 4)));
    pixels = resize(resize(pixels, size, small), small, size);
  }
  const colour = draw('colour');
  if (colour) adjustColour(pixels, colour);
  if (draw('gray')) desaturate(pixels, 0);
  const blurred = draw('blur');
  if (blurred) pixels = blur(pixels, size, (blurred.between(0.5, 1.5) * size) / 56);
  const jpeg = draw('jpeg');
  if (jpeg) jpegArtefacts(pixels, size, 15 + jpeg.below(60));
  const erase = draw('erase');
  if (erase) eraseRectangle(pixels, size, erase);
  const occlude = draw('occlude');
  if (occlude) cover(pixels, size, occlude);
  for (let i = 0; i < pixels.length; i++)
    out[i] = ((pixels[i] < 0 ? 0 : pixels[i] > 255 ? 255 : pixels[i]) - mean) * scale;
}

/**
 * Every output pixel is the mean of r × r bilinear samples, r the reduction rounded up; outside the source it is
 * black, as in alignment. Without a change and at whole reductions this is plain averaging.
 */
function transformed(
  source: Uint8Array,
  side: number,
  size: number,
  mirror: boolean,
  affine: Random | undefined,
  crop: Random | undefined,
): Float32Array {
  let [zoom, cos, sin, dx, dy] = [1, 1, 0, 0, 0];
  if (affine) {
    const angle = (affine.between(-DEGREES, DEGREES) * Math.PI) / 180;
    zoom = 1 / affine.between(1 - ZOOM, 1 + ZOOM);
    [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    [dx, dy] = [affine.between(-SHIFT, SHIFT), affine.between(-SHIFT, SHIFT)];
  }
  if (crop) {
    const window = crop.between(0.75, 1);
    zoom *= window;
    dx += ((1 - window) / 2) * crop.between(-1, 1);
    dy += ((1 - window) / 2) * crop.between(-1, 1);
  }
  const out = new Float32Array(size * size * 3);
  const reduction = Math.max(1, Math.ceil(side / size));
  const share = 1 / (reduction * reduction);
  const fine = size * reduction;
  // A step of one fine sample along the output's row, in source pixels.
  const stepX = (cos * zoom * side * (mirror ? -1 : 1)) / fine;
  const stepY = (sin * zoom * side * (mirror ? -1 : 1)) / fine;
  for (let fy = 0; fy < fine; fy++) {
    const v = (fy + 0.5) / fine - 0.5;
    const u = (0.5 / fine - 0.5) * (mirror ? -1 : 1);
    let x = ((cos * u - sin * v) * zoom + dx + 0.5) * side - 0.5;
    let y = ((sin * u + cos * v) * zoom + dy + 0.5) * side - 0.5;
    const row = Math.floor(fy / reduction) * size;
    for (let fx = 0; fx < fine; fx++, x += stepX, y += stepY) {
      const x0 = Math.floor(x + 1e-9);
      const y0 = Math.floor(y + 1e-9);
      if (x0 < -1 || y0 < -1 || x0 >= side || y0 >= side) continue;
      const s = Math.max(0, x - x0);
      const t = Math.max(0, y - y0);
      const left = x0 >= 0 ? (1 - s) * share : 0;
      const right = x0 + 1 < side ? s * share : 0;
      const top = y0 >= 0 ? 1 - t : 0;
      const bottom = y0 + 1 < side ? t : 0;
      const at = (row + Math.floor(fx / reduction)) * 3;
      const from = (y0 * side + x0) * 3;
      const below = from + side * 3;
      if (top > 0) {
        if (left > 0) add(out, at, source, from, left * top);
        if (right > 0) add(out, at, source, from + 3, right * top);
      }
      if (bottom > 0) {
        if (left > 0) add(out, at, source, below, left * bottom);
        if (right > 0) add(out, at, source, below + 3, right * bottom);
      }
    }
  }
  return out;
}

function add(out: Float32Array, at: number, source: Uint8Array, from: number, weight: number): void {
  out[at] += source[from] * weight;
  out[at + 1] += source[from + 1] * weight;
  out[at + 2] += source[from + 2] * weight;
}

function adjustColour(pixels: Float32Array, random: Random): void {
  const brightness = random.between(-35, 35);
  const contrast = random.between(0.7, 1.3);
  desaturate(pixels, random.between(0.6, 1.4));
  let mean = 0;
  for (let i = 0; i < pixels.length; i++) mean += pixels[i];
  mean /= pixels.length;
  for (let i = 0; i < pixels.length; i++) pixels[i] = (pixels[i] - mean) * contrast + mean + brightness;
}

/** Colour differences times `keep`; 0 leaves gray. */
function desaturate(pixels: Float32Array, keep: number): void {
  for (let i = 0; i < pixels.length; i += 3) {
    const gray = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    for (let k = i; k < i + 3; k++) pixels[k] = gray + (pixels[k] - gray) * keep;
  }
}

function eraseRectangle(pixels: Float32Array, size: number, random: Random): void {
  const area = random.between(0.02, 0.2) * size * size;
  const ratio = Math.exp(random.between(Math.log(0.3), Math.log(3.3)));
  const width = Math.min(size, Math.max(1, Math.round(Math.sqrt(area * ratio))));
  const height = Math.min(size, Math.max(1, Math.round(Math.sqrt(area / ratio))));
  const [x0, y0] = [random.below(size - width + 1), random.below(size - height + 1)];
  for (let y = y0; y < y0 + height; y++)
    for (let i = (y * size + x0) * 3; i < (y * size + x0 + width) * 3; i++) pixels[i] = random.next() * 255;
}

/** Eyes lie at 46 % of the height, the mouth at 82 % (the alignment's template). */
function cover(pixels: Float32Array, size: number, random: Random): void {
  const [from, to] = random.chance(0.5)
    ? [random.between(0.34, 0.4), random.between(0.52, 0.58)]
    : [random.between(0.58, 0.68), 1];
  const colour = [0, 1, 2].map(() => random.next() * 255);
  const end = Math.round(to * size) * size * 3;
  for (let i = Math.round(from * size) * size * 3; i < end; i++) pixels[i] = colour[i % 3];
}
