import type { BufferBinding, FloatType } from '../gpu/kernel_call.js';

/**
 * How tensors lie in memory. The last axis is channels; it is padded with zeros to a multiple of four so that
 * every load is a vec4. A map is [N, H, W, C] (NHWC), a matrix of vectors [N, C]. Kernels keep the padding
 * zero. `shape` is always the logical one.
 */
export interface Operand<B> {
  ref: B;
  shape: readonly number[];
  dtype: FloatType;
}

export const ceilDiv = (a: number, b: number): number => Math.floor((a + b - 1) / b);
/** Groups of four channels of a tensor with `channels` logical channels. */
export const quads = (channels: number): number => ceilDiv(channels, 4);
export const product = (values: readonly number[]): number => values.reduce((a, b) => a * b, 1);
export const channelsOf = (shape: readonly number[]): number => shape[shape.length - 1];
/** All axes but the last, multiplied: rows of the matrix [rows, channels]. */
export const rowsOf = (shape: readonly number[]): number => product(shape.slice(0, -1));
/** vec4 elements a tensor takes. */
export const quadsOf = (shape: readonly number[]): number => rowsOf(shape) * quads(channelsOf(shape));
export const bytesPerQuad = (dtype: FloatType): number => (dtype === 'f32' ? 16 : 8);
export const tensorBytes = (shape: readonly number[], dtype: FloatType): number =>
  quadsOf(shape) * bytesPerQuad(dtype);

/** An input of a kernel, addressed in vec4 through `load_NAME(i)`. */
export function read<B>(name: string, operand: Operand<B>): BufferBinding<B> {
  return { name, ref: operand.ref, element: quadElement(operand.dtype), dtype: operand.dtype, write: false };
}

/** An output of a kernel, written in vec4 through `store_NAME(i, v)`. */
export function write<B>(name: string, operand: Operand<B>): BufferBinding<B> {
  return { ...read(name, operand), write: true };
}

/** An array that is f32 whatever the tensors' storage: parameters of channels, sums, statistics; addressed as `NAME[i]`. */
export function vector<B>(name: string, ref: B, write = false): BufferBinding<B> {
  return { name, ref, element: 'vec4<f32>', write };
}

const quadElement = (dtype: FloatType): string => (dtype === 'f32' ? 'vec4<f32>' : 'vec2<u32>');

/** Grid for one invocation per item, split over two axes where one would pass WebGPU's 65 535 workgroups. */
export function grid(items: number, workgroupSize: number): [number, number, number] {
  const groups = Math.max(1, ceilDiv(items, workgroupSize));
  if (groups <= 65535) return [groups, 1, 1];
  const y = ceilDiv(groups, 65535);
  return [ceilDiv(groups, y), y, 1];
}

/**
 * Opening lines of a one-item-per-invocation kernel over `grid(items, size)`: defines `i` and returns when it
 * is past `params.count`.
 */
export const eachItem = (size: number): string => `
@compute @workgroup_size(${size})
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = gid.x + gid.y * groups.x * ${size}u;
  if (i >= params.count) { return; }`;

/**
 * Quotient by a float reciprocal, put right by one where rounding missed: an integer division of vectors is
 * eight scalar divisions on these adapters. Exact for quotients up to 2²⁴/3, where three roundings are less than one.
 */
export const DIVIDE = `
fn divide(a: u32, b: u32, reciprocal: f32) -> u32 {
  let q = u32(f32(a) * reciprocal);
  let r = i32(a - q * b);
  return q + select(0u, 1u, r >= i32(b)) - select(0u, 1u, r < 0);
}`;

const zeros = (shape: readonly number[]) => new Float32Array(quadsOf(shape) * 4);

/**
 * Copies [rows, channels] values into the padded layout.
 * @param out memory that held values of this shape before, so that its padding is zero; new memory by default.
 */
export function pad(
  data: ArrayLike<number>,
  shape: readonly number[],
  out: Float32Array = zeros(shape),
): Float32Array {
  const c = channelsOf(shape);
  const cp = quads(c) * 4;
  const rows = rowsOf(shape);
  if (c === cp) out.set(data as Float32Array);
  // Pictures, half the time of the loop below.
  else if (c === 3)
    for (let from = 0, to = 0; to < out.length; from += 3, to += 4) {
      out[to] = data[from];
      out[to + 1] = data[from + 1];
      out[to + 2] = data[from + 2];
    }
  else for (let r = 0; r < rows; r++) for (let k = 0; k < c; k++) out[r * cp + k] = data[r * c + k];
  return out;
}

/** The inverse of `pad`: drops the padding. */
export function unpad(data: Float32Array, shape: readonly number[]): Float32Array {
  const c = channelsOf(shape);
  const cp = quads(c) * 4;
  if (c === cp) return data;
  const rows = rowsOf(shape);
  const out = new Float32Array(rows * c);
  for (let r = 0; r < rows; r++) for (let k = 0; k < c; k++) out[r * c + k] = data[r * cp + k];
  return out;
}
