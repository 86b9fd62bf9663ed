/**
 * Rectangles of a picture, resized by area and normalised: [N, h, w, 3] in RGB.
 *
 *   y[n, i, j] = scale · (mean of the pixels of bin (i, j) − mean)
 *
 * Bin i of a side of `in` pixels resized to `out` covers floor(i·in/out) … ceil((i+1)·in/out), i.e. adaptive
 * average pooling as PyTorch defines it, which is what MTCNN's public weights are run with (it also enlarges:
 * then a bin is one or two pixels). One invocation an output pixel.
 *
 * A picture is one u32 a pixel, R in the lowest byte, row by row. Rectangles are vec4<u32>: x0, y0, x1, y1 with
 * x1, y1 exclusive, inside the picture and not empty. `part` computes only a rectangle of the resized picture,
 * so that a level too large for one buffer can be made in tiles.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, type Operand, quadsOf, write } from '../tensor.js';

const SIZE = 64;

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
        mean: f32(mean),
        scale: f32(scale),
      },
      buffers: [
        { name: 'picture', ref: picture.ref, element: 'u32', write: false },
        { name: 'rectangles', ref: rectangles, element: 'vec4<u32>', write: false },
        write('y', y),
      ],
      body: `${eachItem(SIZE)}
  let n = i / (params.out_h * params.out_w);
  let r = rectangles[n];
  let row = i / params.out_w % params.out_h + params.top;
  let column = i % params.out_w + params.left;
  let size = r.zw - r.xy;
  let y0 = r.y + row * size.y / params.whole_h;
  let y1 = r.y + ((row + 1u) * size.y + params.whole_h - 1u) / params.whole_h;
  let x0 = r.x + column * size.x / params.whole_w;
  let x1 = r.x + ((column + 1u) * size.x + params.whole_w - 1u) / params.whole_w;
  var sum = vec3<u32>(0u);
  for (var v = y0; v < y1; v++) {
    for (var u = x0; u < x1; u++) {
      let p = picture[v * params.picture_w + u];
      sum += vec3<u32>(p & 255u, (p >> 8u) & 255u, (p >> 16u) & 255u);
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
