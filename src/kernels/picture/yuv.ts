/**
 * A video frame in I420 (planes Y, U, V; U and V at half size) → a picture of one u32 a pixel, R in the lowest
 * byte, turned upright.
 *
 *   R = k_y·(Y − 16) + k_rv·(V − 128)
 *   G = k_y·(Y − 16) + k_gu·(U − 128) + k_gv·(V − 128)      rounded and clamped to 0…255
 *   B = k_y·(Y − 16) + k_bu·(U − 128)
 *
 * The three planes lie one after the other in one array of bytes, four a u32, so that a frame crosses to the
 * GPU as it leaves the decoder: 1.5 bytes a pixel. The coefficients are those of the frame's colour space (ITU-R
 * BT.601, BT.709 or BT.2020, limited range); chroma is that of the 2×2 block, not interpolated. Output pixel (x, y) comes
 * from the stored pixel a rotation by quarter turns gives. One invocation an output pixel.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid } from '../tensor.js';

const SIZE = 64;

export interface YuvCoefficients {
  y: number;
  rv: number;
  gu: number;
  gv: number;
  bu: number;
}

/**
 * @param width of the stored frame, even
 * @param height of the stored frame, even
 * @param rotation clockwise degrees: 0, 90, 180 or 270
 * @param picture width·height u32; for 90 and 270 degrees its rows are `height` long
 */
export function yuvToPicture<B>(
  yuv: B,
  picture: B,
  { width, height }: { width: number; height: number },
  rotation: number,
  k: YuvCoefficients,
): KernelCall<B>[] {
  const count = width * height;
  // Stored x and y of output pixel (x, y): ox + x·xx + y·xy and oy + x·yx + y·yy.
  const [ox, xx, xy, oy, yx, yy] = {
    0: [0, 1, 0, 0, 0, 1],
    90: [0, 0, 1, height - 1, -1, 0],
    180: [width - 1, -1, 0, height - 1, 0, -1],
    270: [width - 1, 0, -1, 0, 1, 0],
  }[rotation]!;
  const out_w = rotation % 180 === 0 ? width : height;
  const i32 = (value: number) => ({ type: 'i32' as const, value });
  return [
    {
      label: 'picture.yuv',
      uniforms: {
        count: u32(count),
        width: u32(width),
        out_w: u32(out_w),
        ox: i32(ox),
        xx: i32(xx),
        xy: i32(xy),
        oy: i32(oy),
        yx: i32(yx),
        yy: i32(yy),
        k_y: f32(k.y),
        k_rv: f32(k.rv),
        k_gu: f32(k.gu),
        k_gv: f32(k.gv),
        k_bu: f32(k.bu),
      },
      buffers: [
        { name: 'yuv', ref: yuv, element: 'u32', write: false },
        { name: 'picture', ref: picture, element: 'u32', write: true },
      ],
      body: `
fn plane(i: u32) -> f32 { return f32((yuv[i >> 2u] >> ((i & 3u) * 8u)) & 255u); }
${eachItem(SIZE)}
  let column = i32(i % params.out_w);
  let row = i32(i / params.out_w);
  let x = u32(params.ox + column * params.xx + row * params.xy);
  let y = u32(params.oy + column * params.yx + row * params.yy);
  let chroma = params.count + (y >> 1u) * (params.width >> 1u) + (x >> 1u);
  let luma = (plane(y * params.width + x) - 16.0) * params.k_y;
  let u = plane(chroma) - 128.0;
  let v = plane(chroma + (params.count >> 2u)) - 128.0;
  let rgb = vec3<f32>(luma + params.k_rv * v, luma + params.k_gu * u + params.k_gv * v, luma + params.k_bu * u);
  let c = vec3<u32>(clamp(rgb, vec3<f32>(0.0), vec3<f32>(255.0)) + 0.5);
  picture[i] = c.x | (c.y << 8u) | (c.z << 16u) | 0xff000000u;
}`,
      workgroups: grid(count, SIZE),
      flops: 12 * count,
      bytes: count * 5.5,
    },
  ];
}
