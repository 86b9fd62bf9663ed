/**
 * Faces cut out of a picture by a linear map, bilinear, black outside, normalised: [N, h, w, C].
 *
 *   (u, v) = M·(x, y, 1)    y[n, y, x] = scale·(bilinear(picture, u, v) − mean)
 *
 * M (eight f32 a face: a b c, d e f, k, one unused) maps output pixels to picture pixels; pixel centres are at
 * integers, as in OpenCV's warpAffine. With k of 2 and more a pixel is the mean of k × k bilinear samples spread over it: for outputs much
 * smaller than what they show. With `mirror`, rows N … 2N−1 of the output are the same faces mirrored.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, type Operand, quadsOf, write } from '../tensor.js';
import type { Normalisation, PictureOperand } from './resize.js';

const SIZE = 64;

export type ChannelOrder = 'rgb' | 'bgr' | 'gray';

/** Luma of ITU-R BT.601 for gray, as OpenCV and Pillow convert. */
const ORDER: Record<ChannelOrder, string> = {
  rgb: 'vec4<f32>(value, 0.0)',
  bgr: 'vec4<f32>(value.zyx, 0.0)',
  gray: 'vec4<f32>(dot(colour, vec3<f32>(0.299, 0.587, 0.114)) * params.scale - params.mean * params.scale, 0.0, 0.0, 0.0)',
};

export function warpFaces<B>(
  picture: PictureOperand<B>,
  maps: B,
  y: Operand<B>,
  options: Normalisation & { order: ChannelOrder; mirror: boolean },
): KernelCall<B>[] {
  const [n, h, w] = y.shape;
  const count = quadsOf(y.shape);
  return [
    {
      label: `picture.warp ${options.order}`,
      uniforms: {
        count: u32(count),
        faces: u32(options.mirror ? n / 2 : n),
        picture_w: u32(picture.width),
        picture_h: u32(picture.height),
        out_h: u32(h),
        out_w: u32(w),
        mean: f32(options.mean),
        scale: f32(options.scale),
      },
      buffers: [
        { name: 'picture', ref: picture.ref, element: 'u32', write: false },
        { name: 'maps', ref: maps, element: 'vec4<f32>', write: false },
        write('y', y),
      ],
      body: `
fn pixel(x: i32, y: i32) -> vec3<f32> {
  if (x < 0 || y < 0 || x >= i32(params.picture_w) || y >= i32(params.picture_h)) { return vec3<f32>(0.0); }
  let p = picture[u32(y) * params.picture_w + u32(x)];
  return vec3<f32>(f32(p & 255u), f32((p >> 8u) & 255u), f32((p >> 16u) & 255u));
}
fn bilinear(u: f32, v: f32) -> vec3<f32> {
  let corner = vec2<i32>(i32(floor(u)), i32(floor(v)));
  let f = vec2<f32>(u - floor(u), v - floor(v));
  let above = mix(pixel(corner.x, corner.y), pixel(corner.x + 1, corner.y), f.x);
  let below = mix(pixel(corner.x, corner.y + 1), pixel(corner.x + 1, corner.y + 1), f.x);
  return mix(above, below, f.y);
}
${eachItem(SIZE)}
  let n = i / (params.out_h * params.out_w);
  let face = n % params.faces;
  let column = i % params.out_w;
  let x = f32(select(column, params.out_w - 1u - column, n >= params.faces));
  let y = f32(i / params.out_w % params.out_h);
  let m0 = maps[2u * face];
  let m1 = maps[2u * face + 1u];
  let side = max(1u, u32(m1.z));
  var colour = vec3<f32>(0.0);
  for (var s = 0u; s < side * side; s++) {
    let sx = x + (f32(s % side) + 0.5) / f32(side) - 0.5;
    let sy = y + (f32(s / side) + 0.5) / f32(side) - 0.5;
    colour += bilinear(m0.x * sx + m0.y * sy + m0.z, m0.w * sx + m1.x * sy + m1.y);
  }
  colour /= f32(side * side);
  let value = (colour - params.mean) * params.scale;
  store_y(i, ${ORDER[options.order]});
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: count * 32,
    },
  ];
}
