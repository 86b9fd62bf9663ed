/** MXNet's `.params`: a list of dense arrays and their names, `arg:NAME` and `aux:NAME`. */
import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  type StateDict,
} from '../state_dict.js';

const LIST_MAGIC = 0x112;
const V1 = 0xf993fac8;
const V2 = 0xf993fac9;
const TYPES: readonly ElementType[] = ['f32', 'f64', 'f16', 'u8', 'i32', 'i8', 'i64'];

export const looksLikeMxnet = (bytes: Uint8Array): boolean =>
  bytes.length > 24 &&
  new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true) === BigInt(LIST_MAGIC);

export function readMxnet(bytes: Uint8Array): StateDict {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 16;
  const take = (n: number): number => {
    if (!(n >= 0) || at + n > bytes.length)
      throw new WeightsError(`mxnet: the file ends at byte ${bytes.length}, ${n} more were wanted at ${at}.`);
    at += n;
    return at - n;
  };
  const u32 = () => view.getUint32(take(4), true);
  const u64 = () => Number(view.getBigUint64(take(8), true));
  const count = u64();
  if (count > 100_000) throw new WeightsError(`mxnet: ${count} arrays are more than any net has.`);
  const tensors = Array.from({ length: count }, () => {
    const magic = u32();
    if (magic !== V1 && magic !== V2)
      throw new WeightsError('mxnet: arrays in a format older than MXNet 0.11 are not read.');
    if (magic === V2 && view.getInt32(take(4), true) !== 0)
      throw new WeightsError('mxnet: sparse arrays are not read.');
    const rank = u32();
    if (rank > 8) throw new WeightsError(`mxnet: an array of ${rank} axes.`);
    const shape = Array.from({ length: rank }, u64);
    take(8); // device
    const type = TYPES[u32()];
    if (!type) throw new WeightsError('mxnet: an array of unknown element type.');
    const elements = elementCount(shape);
    const from = take(elements * ELEMENT_BYTES[type]);
    return { shape, data: decodeElements(bytes.subarray(from, at), type, elements) };
  });
  const names = u64();
  if (names !== count) throw new WeightsError(`mxnet: ${count} arrays but ${names} names.`);
  const decoder = new TextDecoder();
  const state: StateDict = new Map();
  for (const tensor of tensors) {
    const length = u64();
    const from = take(length);
    state.set(decoder.decode(bytes.subarray(from, at)), tensor);
  }
  return state;
}
