/**
 * Rectangles of a picture, resized by area and normalised: [N, h, w, 3] in RGB.
 *
 *   y[n, i, j] = scale · (mean of the pixels of bin (i, j) − mean)
 *
 * Bin i of a side of `in` pixels resized to `out` covers floor(i·in/out) … ceil((i+1)·in/out), i.e. adaptive
 * average pooling as PyTorch defines it, which is what MTCNN's public weights are run with (it also enlarges:
 * then a bin is one or two pixels). One invocation an output pixel.
 *
 * A picture is one u32 a pixel, R in the lowest byte, row by row, in memory of a multiple of four pixels: they are read
 * four at a time, which takes half the time, and what does not belong to the bin counts as zero. Rectangles are vec4<u32>: x0, y0, x1, y1 with
 * x1, y1 exclusive, inside the picture and not empty. `part` computes only a rectangle of the resized picture,
 * so that a level too large for one buffer can be made in tiles.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { DIVIDE, eachItem, grid, type Operand, quadsOf, write } from '../tensor.js';

const SIZE = 32;

export interface PictureOperand<B> {
  ref: B;
  width: number;
  height: number;
}

export interface Normalisation {
  /** y = scale·(v − mean) for bytes v. */
  mean: number;
  scale: number;
}

export interface ResizePart {
  /** Size of the whole resized picture, of which y is a part. */
  height: number;
  width: number;
  top: number;
  left: number;
}

export function resizeRectangles<B>(
  picture: PictureOperand<B>,
  rectangles: B,
  y: Operand<B>,
  { mean, scale }: Normalisation,
  part?: ResizePart,
): KernelCall<B>[] {
  const [, h, w] = y.shape;
  const count = quadsOf(y.shape);
  const whole = part ?? { height: h, width: w, top: 0, left: 0 };
  return [
    {
      label: 'picture.resize',
      uniforms: {
        count: u32(count),
        picture_w: u32(picture.width),
        out_h: u32(h),
        out_w: u32(w),
        whole_h: u32(whole.height),
        whole_w: u32(whole.width),
        top: u32(whole.top),
        left: u32(whole.left),
        per_out_h: f32(1 / h),
        per_out_w: f32(1 / w),
        per_whole_h: f32(1 / whole.height),
        per_whole_w: f32(1 / whole.width),
        mean: f32(mean),
        scale: f32(scale),
      },
      buffers: [
        { name: 'picture', ref: picture.ref, element: 'vec4<u32>', write: false },
        { name: 'rectangles', ref: rectangles, element: 'vec4<u32>', write: false },
        write('y', y),
      ],
      body: `${DIVIDE}
${eachItem(SIZE)}
  let line = divide(i, params.out_w, params.per_out_w);
  let n = divide(line, params.out_h, params.per_out_h);
  let r = rectangles[n];
  let row = line - n * params.out_h + params.top;
  let column = i - line * params.out_w + params.left;
  let size = r.zw - r.xy;
  let y0 = r.y + divide(row * size.y, params.whole_h, params.per_whole_h);
  let y1 = r.y + divide((row + 1u) * size.y + params.whole_h - 1u, params.whole_h, params.per_whole_h);
  let x0 = r.x + divide(column * size.x, params.whole_w, params.per_whole_w);
  let x1 = r.x + divide((column + 1u) * size.x + params.whole_w - 1u, params.whole_w, params.per_whole_w);
  var sum = vec3<u32>(0u);
  for (var v = y0; v < y1; v++) {
    let start = v * params.picture_w + x0;
    let end = v * params.picture_w + x1;
    for (var at = start / 4u; at * 4u < end; at++) {
      // Unsigned wrap-around makes what lies before the bin large, so that one comparison tests both ends.
      let place = at * 4u + vec4<u32>(0u, 1u, 2u, 3u) - start;
      let p = select(vec4<u32>(0u), picture[at], place < vec4<u32>(end - start));
      let red_blue = p & vec4<u32>(0x00ff00ffu);
      let green = (p >> vec4<u32>(8u)) & vec4<u32>(255u);
      let both = red_blue.x + red_blue.y + red_blue.z + red_blue.w;
      sum += vec3<u32>(both & 0xffffu, green.x + green.y + green.z + green.w, both >> 16u);
    }
  }
  let average = vec3<f32>(sum) / f32((y1 - y0) * (x1 - x0));
  store_y(i, vec4<f32>((average - params.mean) * params.scale, 0.0));
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: picture.width * picture.height * 4 + count * 16,
    },
  ];
}
