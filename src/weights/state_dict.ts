import { halfBits } from '../kernels/packing.js';

/** A weight in PyTorch's layout (conv OIHW, dense [out, in]), decoded to f32. */
export interface WeightTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Weights by name, in file order. */
export type StateDict = Map<string, WeightTensor>;

export const elementCount = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

export function parameterCount(state: StateDict): number {
  let sum = 0;
  for (const { data } of state.values()) sum += data.length;
  return sum;
}

export function toHalf(data: Float32Array): Uint16Array {
  return Uint16Array.from(data, halfBits);
}

/** IEEE half bits to a number. */
export function fromHalfBits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15));
}

/** Element types of the formats read here, by their width, decoded to f32. */
export type ElementType = 'f64' | 'f32' | 'f16' | 'bf16' | 'i64' | 'i32' | 'i16' | 'i8' | 'u8' | 'bool';

export const ELEMENT_BYTES: Record<ElementType, number> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
};

/** Decodes little-endian elements; integers beyond 2^24 lose precision, which no weight needs. */
export function decodeElements(bytes: Uint8Array, type: ElementType, count: number): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(count);
  if (type === 'f32') {
    new Uint8Array(out.buffer).set(bytes.subarray(0, count * 4));
    return out;
  }
  const width = ELEMENT_BYTES[type];
  const scratch = new DataView(new ArrayBuffer(4));
  const readers: Record<Exclude<ElementType, 'f32'>, (at: number) => number> = {
    f64: (at) => view.getFloat64(at, true),
    f16: (at) => fromHalfBits(view.getUint16(at, true)),
    bf16: (at) => {
      scratch.setUint16(0, view.getUint16(at, true));
      return scratch.getFloat32(0);
    },
    i64: (at) => Number(view.getBigInt64(at, true)),
    i32: (at) => view.getInt32(at, true),
    i16: (at) => view.getInt16(at, true),
    i8: (at) => view.getInt8(at),
    u8: (at) => view.getUint8(at),
    bool: (at) => (view.getUint8(at) ? 1 : 0),
  };
  const read = readers[type];
  for (let i = 0; i < count; i++) out[i] = read(i * width);
  return out;
}

/** Reorders axes: out[j0, j1, …] = in[…] with out axis k being in axis order[k]. */
export function permute({ shape, data }: WeightTensor, order: readonly number[]): WeightTensor {
  const outShape = order.map((axis) => shape[axis]);
  const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  const out = new Float32Array(data.length);
  const index = new Array<number>(order.length).fill(0);
  for (let i = 0; i < out.length; i++) {
    let at = 0;
    for (let k = 0; k < order.length; k++) at += index[k] * strides[order[k]];
    out[i] = data[at];
    for (let k = order.length - 1; k >= 0; k--) {
      if (++index[k] < outShape[k]) break;
      index[k] = 0;
    }
  }
  return { shape: outShape, data: out };
}

export const reshape = ({ data }: WeightTensor, shape: readonly number[]): WeightTensor => ({ shape, data });
