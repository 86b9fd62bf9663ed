/**
 * safetensors: u64 length of a JSON header, the header (name → dtype, shape, data_offsets; `__metadata__` holds
 * strings), then the bytes of all tensors without gaps.
 */
import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  type StateDict,
  toHalf,
} from '../state_dict.js';

const TYPES: Record<string, ElementType> = {
  F64: 'f64',
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
  I64: 'i64',
  I32: 'i32',
  I16: 'i16',
  I8: 'i8',
  U8: 'u8',
  BOOL: 'bool',
};
const MAX_HEADER = 100 * 1024 * 1024;

export interface SafetensorsFile {
  state: StateDict;
  metadata: Record<string, string>;
}

export function looksLikeSafetensors(bytes: Uint8Array): boolean {
  if (bytes.length < 10) return false;
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  return length <= BigInt(bytes.length - 8) && bytes[8] === 0x7b;
}

/** @throws WeightsError when the header is malformed or points outside the file. */
export function readSafetensors(bytes: Uint8Array): SafetensorsFile {
  if (bytes.length < 8) throw new WeightsError('safetensors: the file is shorter than its length field.');
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > MAX_HEADER || length > bytes.length - 8) {
    throw new WeightsError(
      `safetensors: the header claims ${length} bytes, the file has ${bytes.length - 8} after the length: truncated or not safetensors.`,
    );
  }
  let header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(8, 8 + length)));
  } catch (error) {
    throw new WeightsError(`safetensors: the header is not JSON: ${(error as Error).message}`);
  }
  const body = bytes.subarray(8 + length);
  const state: StateDict = new Map();
  const { __metadata__, ...tensors } = header as typeof header & { __metadata__?: Record<string, string> };
  for (const [name, entry] of Object.entries(tensors)) {
    const type = TYPES[entry?.dtype];
    const [begin, end] = entry?.data_offsets ?? [];
    if (!type || !Array.isArray(entry.shape) || entry.shape.some((n) => !Number.isSafeInteger(n) || n < 0)) {
      throw new WeightsError(
        `safetensors: tensor ${name} has no usable dtype and shape (${JSON.stringify(entry)}).`,
      );
    }
    const count = elementCount(entry.shape);
    if (
      !(
        Number.isSafeInteger(begin) &&
        begin >= 0 &&
        end <= body.length &&
        end - begin === count * ELEMENT_BYTES[type]
      )
    ) {
      throw new WeightsError(
        `safetensors: tensor ${name} [${entry.shape}] lies at bytes ${begin}–${end} of ${body.length}: the file is truncated or its header is wrong.`,
      );
    }
    state.set(name, { shape: entry.shape, data: decodeElements(body.subarray(begin, end), type, count) });
  }
  return { state, metadata: __metadata__ ?? {} };
}

/** @param type storage of every tensor; f16 rounds to nearest even. */
export function writeSafetensors(
  state: StateDict,
  metadata: Record<string, string>,
  type: 'f32' | 'f16' = 'f32',
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, { shape, data }] of state) {
    const elements = type === 'f16' ? toHalf(data) : data;
    const part = new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
    header[name] = { dtype: type.toUpperCase(), shape, data_offsets: [at, at + part.length] };
    parts.push(part);
    at += part.length;
  }
  let json = JSON.stringify(header);
  const text = new TextEncoder();
  // Tensors begin at a multiple of eight; the format pads its header with spaces.
  json += ' '.repeat((8 - (text.encode(json).length % 8)) % 8);
  const head = text.encode(json);
  const out = new Uint8Array(8 + head.length + at);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  let offset = 8 + head.length;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
