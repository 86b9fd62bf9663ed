import { quads } from './tensor.js';

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
 * [kh][kw][Ip/2][Op] of u32, low half the even input channel. `winograd` and `winogradf16` are `f32` and `f16pairs`
 * of a 3×3 filter carried over to the sixteen points of F(2×2, 3×3), as if it were 4×4; `winogradf16` times four.
 */
export type ParameterLayout = 'vector' | 'conv' | 'depthwise' | 'grouped' | 'dense';
export type Packing = 'f32' | 'f16' | 'f16pairs' | 'winograd' | 'winogradf16';
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

/**
 * Every layout is a matrix [depth][Op] of a PyTorch tensor seen as [O][features]: which feature each row holds, −1
 * for rows of padding.
 */
function rowsOf(shape: readonly number[], layout: ParameterLayout, flatten?: FlattenedMap): Int32Array {
  if (layout === 'vector') return new Int32Array(1);
  if (layout === 'dense') {
    const map = flatten?.map ?? [1, 1, shape[1]];
    const [H, W, C] = map;
    const cp = quads(C) * 4;
    const rows = new Int32Array(H * W * cp).fill(-1);
    for (let h = 0; h < H; h++)
      for (let w = 0; w < W; w++)
        for (let c = 0; c < C; c++)
          rows[(h * W + w) * cp + c] = flatIndex(flatten?.order ?? 'hwc', map, h, w, c);
    return rows;
  }
  const [, i, kh, kw] = shape;
  const taps = kh * kw;
  const ip = layout === 'conv' ? quads(i) * 4 : i;
  const rows = new Int32Array(taps * ip).fill(-1);
  for (let t = 0; t < taps; t++) for (let c = 0; c < i; c++) rows[t * ip + c] = c * taps + t;
  return rows;
}

/** Output channels packed in one go: a block's share of a row is written at once. */
const BLOCK = 16;

/** Visits every element of a parameter as (index outside, index inside). */
export function packIndices(
  shape: readonly number[],
  layout: ParameterLayout,
  flatten: FlattenedMap | undefined,
  visit: (outside: number, inside: number) => void,
): { length: number; depth: number; outputs: number } {
  const rows = rowsOf(shape, layout, flatten);
  const features = shape.slice(1).reduce((a, b) => a * b, 1);
  const outputs = quads(shape[0]) * 4;
  for (let first = 0; first < shape[0]; first += BLOCK) {
    const end = Math.min(first + BLOCK, shape[0]);
    for (let row = 0; row < rows.length; row++) {
      if (rows[row] < 0) continue;
      for (let k = first; k < end; k++) visit(k * features + rows[row], row * outputs + k);
    }
  }
  return { length: rows.length * outputs, depth: rows.length, outputs };
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
  // packIndices written out: millions of calls of a function take seconds.
  const rows = rowsOf(shape, layout, flatten);
  const features = shape.slice(1).reduce((a, b) => a * b, 1);
  const outputs = quads(shape[0]) * 4;
  const out = new Float32Array(rows.length * outputs);
  for (let first = 0; first < shape[0]; first += BLOCK) {
    const end = Math.min(first + BLOCK, shape[0]);
    for (let row = 0; row < rows.length; row++) {
      const from = rows[row];
      if (from < 0) continue;
      const to = row * outputs;
      for (let k = first; k < end; k++) out[to + k] = data[k * features + from];
    }
  }
  return { data: out, depth: rows.length, outputs };
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

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** IEEE half bits of a number, rounded to nearest even; beyond the range becomes infinity. */
export function halfBits(value: number): number {
  scratch[0] = value;
  const bits = scratchBits[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  // The usual case first: a normal half. Adding the rounding may carry into the exponent, as it should.
  if (magnitude >= 0x38800000 && magnitude < 0x477ff000)
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  if (magnitude >= 0x477ff000) return sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0);
  if (magnitude < 0x33000000) return sign;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - (magnitude >>> 23);
  const half = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  return sign | (half + (rest > middle || (rest === middle && half & 1) ? 1 : 0));
}

/** The bytes to upload for a packing of the GPU's f32 order. */
export function packedData(packed: Packed, packing: 'f32' | 'f16' | 'f16pairs'): Float32Array | Uint16Array {
  if (packing === 'f32') return packed.data;
  const { data, depth, outputs } = packed;
  const out = new Uint16Array(data.length);
  if (packing === 'f16') {
    for (let i = 0; i < data.length; i++) out[i] = halfBits(data[i]);
    return out;
  }
  for (let k = 0; k < depth; k++) {
    const from = k * outputs;
    const to = (k >> 1) * outputs * 2 + (k & 1);
    for (let o = 0; o < outputs; o++) out[to + 2 * o] = halfBits(data[from + o]);
  }
  return out;
}

/** PyTorch order → the bytes to upload for a packing. */
export function packParameter(
  data: Float32Array,
  shape: readonly number[],
  layout: ParameterLayout,
  packing: Packing,
  flatten?: FlattenedMap,
): Float32Array | Uint16Array {
  if (packing !== 'winograd' && packing !== 'winogradf16')
    return packedData(pack(data, shape, layout, flatten), packing);
  if (layout !== 'conv')
    throw new Error(`packing ${packing} is for filters of 3×3, not for layout ${layout}`);
  const half = packing === 'winogradf16';
  return packedData(packWinograd(data, shape, half ? 4 : 1), half ? 'f16pairs' : 'f32');
}

/**
 * factor · G g Gᵀ for each 3×3 filter g (see conv2d/winograd.ts), packed as a filter of 4×4: the same channel of a block of
 * filters in turn, so that each of a point's lines of memory is written at once.
 */
function packWinograd(data: Float32Array, [O, I]: readonly number[], factor: number): Packed {
  const [inputs, outputs] = [quads(I) * 4, quads(O) * 4];
  const out = new Float32Array(16 * inputs * outputs);
  /** G g of one filter, [4][3]. */
  const half = new Float32Array(12);
  for (let first = 0; first < O; first += BLOCK) {
    const end = Math.min(first + BLOCK, O);
    for (let i = 0; i < I; i++) {
      for (let o = first; o < end; o++) {
        const from = (o * I + i) * 9;
        for (let c = 0; c < 3; c++) {
          const a = data[from + c] * factor;
          const b = data[from + 3 + c] * factor;
          const d = data[from + 6 + c] * factor;
          half[c] = a;
          half[3 + c] = (a + b + d) / 2;
          half[6 + c] = (a - b + d) / 2;
          half[9 + c] = d;
        }
        for (let r = 0; r < 4; r++) {
          const a = half[3 * r];
          const b = half[3 * r + 1];
          const d = half[3 * r + 2];
          const to = (4 * r * inputs + i) * outputs + o;
          const point = inputs * outputs;
          out[to] = a;
          out[to + point] = (a + b + d) / 2;
          out[to + 2 * point] = (a - b + d) / 2;
          out[to + 3 * point] = d;
        }
      }
    }
  }
  return { data: out, depth: 16 * inputs, outputs };
}
