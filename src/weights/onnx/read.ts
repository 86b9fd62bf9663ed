import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  type StateDict,
} from '../state_dict.js';
import { readFields } from './protobuf.js';

const TYPES: Record<number, ElementType> = {
  1: 'f32',
  2: 'u8',
  3: 'i8',
  5: 'i16',
  6: 'i32',
  7: 'i64',
  9: 'bool',
  10: 'f16',
  11: 'f64',
  16: 'bf16',
};

/** ModelProto begins with ir_version (field 1, varint) and has a graph (field 7). */
export const looksLikeOnnx = (bytes: Uint8Array): boolean =>
  bytes.length > 4 && bytes[0] === 0x08 && bytes[1] < 0x20;

/** The initialisers (weights) of an ONNX model by name. The graph itself is not read. */
export function readOnnx(bytes: Uint8Array): StateDict {
  const state: StateDict = new Map();
  for (const { field, value } of readFields(bytes)) {
    if (field !== 7 || !(value instanceof Uint8Array)) continue;
    for (const part of readFields(value)) {
      if (part.field === 5 && part.value instanceof Uint8Array) readTensor(part.value, state);
    }
  }
  if (state.size === 0) throw new WeightsError('onnx: the model holds no weights.');
  return state;
}

function readTensor(bytes: Uint8Array, state: StateDict): void {
  const shape: number[] = [];
  let type: ElementType | undefined;
  let name = '';
  let raw: Uint8Array | undefined;
  const floats: Uint8Array[] = [];
  for (const { field, value } of readFields(bytes)) {
    if (field === 1) shape.push(...(value instanceof Uint8Array ? packed(value) : [Number(value)]));
    else if (field === 2) type = TYPES[Number(value)];
    else if (field === 4 && value instanceof Uint8Array) floats.push(value);
    else if (field === 8 && value instanceof Uint8Array) name = new TextDecoder().decode(value);
    else if (field === 9 && value instanceof Uint8Array) raw = value;
    else if (field === 14 && Number(value) === 1)
      throw new WeightsError(`onnx: ${name} is stored in another file, which is not read.`);
  }
  if (!type) return; // Strings and other things that are no weights.
  const count = elementCount(shape);
  const content = raw ?? (type === 'f32' ? joined(floats) : undefined);
  if (!content) return; // Small integer constants kept in typed fields: not weights.
  if (content.length < count * ELEMENT_BYTES[type])
    throw new WeightsError(`onnx: ${name} [${shape}] has ${content.length} bytes, too few.`);
  state.set(name, { shape, data: decodeElements(content, type, count) });
}

function packed(bytes: Uint8Array): number[] {
  const out: number[] = [];
  let value = 0;
  let factor = 1;
  for (const b of bytes) {
    value += (b & 127) * factor;
    factor *= 128;
    if (b < 128) {
      out.push(value);
      value = 0;
      factor = 1;
    }
  }
  return out;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
