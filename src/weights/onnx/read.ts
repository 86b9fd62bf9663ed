import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  reshape,
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

const MAX_PROPERTIES = 256;
const MAX_PROPERTY_BYTES = 1024 * 1024;

export interface OnnxFile {
  state: StateDict;
  /** The model's properties (`metadata_props`). */
  metadata: Record<string, string>;
}

/** The initialisers (weights) of an ONNX model by name, and its properties. The graph itself is not read. */
export function readOnnx(bytes: Uint8Array): OnnxFile {
  const state: StateDict = new Map();
  const properties = new Map<string, string>();
  for (const { field, value } of readFields(bytes)) {
    if (!(value instanceof Uint8Array)) continue;
    if (field === 14) readProperty(value, properties);
    if (field !== 7) continue;
    for (const part of readFields(value)) {
      if (part.field === 5 && part.value instanceof Uint8Array) readTensor(part.value, state);
    }
  }
  if (state.size === 0) throw new WeightsError('onnx: the model holds no weights.');
  return { state, metadata: Object.fromEntries(properties) };
}

/**
 * The tensors of a model that exportOnnx wrote, as they were before: PReLU's slopes are [C, 1, 1] there, under
 * `name/map`, and what else has a slash in its name are constants of the graph.
 */
export function ownState(state: StateDict): StateDict {
  const out: StateDict = new Map();
  for (const [name, tensor] of state) {
    if (name.endsWith('/map')) out.set(name.slice(0, -4), reshape(tensor, [tensor.data.length]));
    else if (!name.includes('/')) out.set(name, tensor);
  }
  return out;
}

/** StringStringEntryProto: key (1), value (2). */
function readProperty(bytes: Uint8Array, properties: Map<string, string>): void {
  if (bytes.length > MAX_PROPERTY_BYTES || properties.size >= MAX_PROPERTIES)
    throw new WeightsError(
      `onnx: more than ${MAX_PROPERTIES} properties, or one of more than ${MAX_PROPERTY_BYTES} bytes.`,
    );
  const entry = ['', ''];
  for (const { field, value } of readFields(bytes)) {
    if ((field === 1 || field === 2) && value instanceof Uint8Array)
      entry[field - 1] = new TextDecoder().decode(value);
  }
  properties.set(entry[0], entry[1]);
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
