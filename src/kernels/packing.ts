import { bytesPerQuad, quads } from './tensor.js';

/**
 * How a parameter lies on the GPU. PyTorch's layouts (outside) become layouts that kernels read widely
 * (inside); output channels are always innermost, padded to a multiple of four with zeros.
 *
 * | layout    | PyTorch            | GPU, f32                                                  |
 * |-----------|--------------------|-----------------------------------------------------------|
 * | vector    | [C]                | [Cp]                                                      |
 * | conv      | [O, I, kh, kw]     | [kh][kw][Ip][Op]                                          |
 * | depthwise | [C, 1, kh, kw]     | [kh][kw][Cp]                                              |
 * | grouped   | [O, I/g, kh, kw]   | [kh][kw][I/g][Op], I/g not padded                         |
 * | dense     | [O, I]             | [Ip][Op]; I split as the flattened map's [H][W][Cp]       |
 *
 * Packing `f32` stores vec4<f32>, `f16` stores the same order as halves (vec2<u32> for four), `f16pairs`
 * (conv and dense) interleaves two successive input channels of one output channel in a u32:
 * [kh][kw][Ip/2][Op] of u32, low half the even input channel.
 */
export type ParameterLayout = 'vector' | 'conv' | 'depthwise' | 'grouped' | 'dense';
export type Packing = 'f32' | 'f16' | 'f16pairs';
export type FlattenOrder = 'chw' | 'hwc' | 'whc' | 'cwh';

export interface FlattenedMap {
  order: FlattenOrder;
  /** The map before flattening, [H, W, C]. */
  map: readonly number[];
}

/** Index of element (h, w, c) in a map [H, W, C] flattened in the given order. */
export function flatIndex(
  order: FlattenOrder,
  [H, W, C]: readonly number[],
  h: number,
  w: number,
  c: number,
): number {
  switch (order) {
    case 'chw':
      return (c * H + h) * W + w;
    case 'hwc':
      return (h * W + w) * C + c;
    case 'whc':
      return (w * H + h) * C + c;
    case 'cwh':
      return (c * W + w) * H + h;
  }
}

/** The padded f32 GPU order of a parameter and, for `conv` and `dense`, its [depth, Op] matrix shape. */
export interface Packed {
  data: Float32Array;
  /** Rows of the GEMM (taps × padded input channels); 1 for vectors. */
  depth: number;
  outputs: number;
}

/** Visits every element of a parameter as (index outside, index inside). Both directions of packing use it. */
export function packIndices(
  shape: readonly number[],
  layout: ParameterLayout,
  flatten: FlattenedMap | undefined,
  visit: (outside: number, inside: number) => void,
): { length: number; depth: number; outputs: number } {
  if (layout === 'vector') {
    const [c] = shape;
    for (let i = 0; i < c; i++) visit(i, i);
    return { length: quads(c) * 4, depth: 1, outputs: quads(c) * 4 };
  }
  if (layout === 'dense') {
    const [o, features] = shape;
    const op = quads(o) * 4;
    const [H, W, C] = flatten?.map ?? [1, 1, features];
    const cp = quads(C) * 4;
    const order = flatten?.order ?? 'hwc';
    for (let h = 0; h < H; h++) {
      for (let w = 0; w < W; w++) {
        for (let c = 0; c < C; c++) {
          const column = flatIndex(order, [H, W, C], h, w, c);
          const row = (h * W + w) * cp + c;
          for (let k = 0; k < o; k++) visit(k * features + column, row * op + k);
        }
      }
    }
    return { length: H * W * cp * op, depth: H * W * cp, outputs: op };
  }
  const [o, i, kh, kw] = shape;
  const op = quads(o) * 4;
  if (layout === 'depthwise') {
    for (let k = 0; k < o; k++) for (let t = 0; t < kh * kw; t++) visit(k * kh * kw + t, t * op + k);
    return { length: kh * kw * op, depth: kh * kw, outputs: op };
  }
  const ip = layout === 'conv' ? quads(i) * 4 : i;
  for (let k = 0; k < o; k++) {
    for (let c = 0; c < i; c++) {
      for (let t = 0; t < kh * kw; t++) visit((k * i + c) * kh * kw + t, (t * ip + c) * op + k);
    }
  }
  return { length: kh * kw * ip * op, depth: kh * kw * ip, outputs: op };
}

/** Elements of a parameter in its f32 GPU order, padding included. */
export function packedLength(
  shape: readonly number[],
  layout: ParameterLayout,
  flatten?: FlattenedMap,
): number {
  const op = quads(shape[0]) * 4;
  if (layout === 'vector') return op;
  if (layout === 'dense') {
    const [h, w, c] = flatten?.map ?? [1, 1, shape[1]];
    return h * w * quads(c) * 4 * op;
  }
  const [, i, kh, kw] = shape;
  return kh * kw * (layout === 'depthwise' ? 1 : layout === 'conv' ? quads(i) * 4 : i) * op;
}

/** PyTorch order → GPU order. */
export function pack(
  data: Float32Array,
  shape: readonly number[],
  layout: ParameterLayout,
  flatten?: FlattenedMap,
): Packed {
  const { length, depth, outputs } = packIndices(shape, layout, flatten, () => {});
  const out = new Float32Array(length);
  packIndices(shape, layout, flatten, (outside, inside) => {
    out[inside] = data[outside];
  });
  return { data: out, depth, outputs };
}

/** GPU order → PyTorch order, for reading trained parameters back. */
export function unpack(
  data: Float32Array,
  shape: readonly number[],
  layout: ParameterLayout,
  flatten?: FlattenedMap,
): Float32Array {
  const out = new Float32Array(shape.reduce((a, b) => a * b, 1));
  packIndices(shape, layout, flatten, (outside, inside) => {
    out[outside] = data[inside];
  });
  return out;
}

/** Bytes on the GPU for a packed parameter. */
export function packedBytes(packed: Packed, packing: Packing): number {
  return packing === 'f32' ? packed.data.length * 4 : (packed.data.length / 4) * bytesPerQuad('f16');
}

const f16Scratch = new DataView(new ArrayBuffer(4));

/** IEEE half bits of a number, rounded to nearest even; beyond the range becomes infinity. */
export function halfBits(value: number): number {
  f16Scratch.setFloat32(0, value);
  const bits = f16Scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  let mantissa = bits & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa ? 0x200 : 0);
  const e = exponent - 112;
  if (e >= 31) return sign | 0x7c00;
  if (e <= 0) {
    if (e < -10) return sign;
    mantissa |= 0x800000;
    const shift = 14 - e;
    const half = mantissa >>> shift;
    const rest = mantissa & ((1 << shift) - 1);
    const middle = 1 << (shift - 1);
    return sign | (half + (rest > middle || (rest === middle && half & 1) ? 1 : 0));
  }
  const half = (e << 10) | (mantissa >>> 13);
  const rest = mantissa & 0x1fff;
  return sign | (half + (rest > 0x1000 || (rest === 0x1000 && half & 1) ? 1 : 0));
}

/** The bytes to upload for a packing. */
export function packedData(packed: Packed, packing: Packing): Float32Array | Uint16Array {
  if (packing === 'f32') return packed.data;
  const { data, depth, outputs } = packed;
  const out = new Uint16Array(data.length);
  if (packing === 'f16') {
    for (let i = 0; i < data.length; i++) out[i] = halfBits(data[i]);
    return out;
  }
  for (let k = 0; k < depth; k++) {
    for (let o = 0; o < outputs; o++)
      out[((k >> 1) * outputs + o) * 2 + (k & 1)] = halfBits(data[k * outputs + o]);
  }
  return out;
}
