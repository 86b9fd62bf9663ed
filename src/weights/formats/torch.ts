/**
 * PyTorch checkpoints: the zip form (since 1.6: data.pkl and one file a storage, stored uncompressed) and the legacy form
 * (pickles one after the other, then the storages' bytes). Only tensors and containers are read.
 */
import { unzipSync } from 'fflate';
import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  permute,
  type WeightTensor,
} from '../state_dict.js';
import { numpyBuild, numpyGlobal } from './numpy.js';
import { type Global, type PickleDict, type PickleOptions, readPickle, text } from './pickle.js';

const STORAGES: Record<string, ElementType> = {
  DoubleStorage: 'f64',
  FloatStorage: 'f32',
  HalfStorage: 'f16',
  BFloat16Storage: 'bf16',
  LongStorage: 'i64',
  IntStorage: 'i32',
  ShortStorage: 'i16',
  CharStorage: 'i8',
  ByteStorage: 'u8',
  BoolStorage: 'bool',
};
const MAX_BYTES = 4 * 1024 ** 3;

interface Storage {
  type: ElementType;
  key: string;
  count: number;
}

/** A tensor whose elements are read once the storages are known. */
class LazyTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

export const looksLikeZip = (bytes: Uint8Array): boolean => bytes[0] === 0x50 && bytes[1] === 0x4b;
/** Protocol 2, then the long 0x1950a86a20f9469cfc6c. */
export const looksLikeLegacyTorch = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x80 && bytes[2] === 0x8a && bytes[3] === 0x0a && bytes[4] === 0x6c && bytes[5] === 0xfc;

/** The checkpoint's object with every tensor decoded; dicts are Maps, tensors WeightTensors. */
export function readTorch(bytes: Uint8Array): unknown {
  return looksLikeZip(bytes) ? readZip(bytes) : readLegacy(bytes);
}

function readZip(bytes: Uint8Array): unknown {
  const files = unzip(bytes);
  const pickleName = Object.keys(files).find((n) => /(^|\/)data\.pkl$/.test(n));
  if (!pickleName)
    throw new WeightsError(
      'torch: the zip has no data.pkl, so it is not a PyTorch checkpoint (TorchScript constants are not read).',
    );
  const folder = pickleName.slice(0, -'data.pkl'.length);
  const { value } = readPickle(files[pickleName], options());
  return resolve(value, (storage) => {
    const file = files[`${folder}data/${storage.key}`];
    if (!file) throw new WeightsError(`torch: storage ${storage.key} is missing from the zip.`);
    return file;
  });
}

function unzip(bytes: Uint8Array): Record<string, Uint8Array> {
  let total = 0;
  const filter = ({ originalSize }: { originalSize: number }): boolean => {
    total += originalSize;
    if (total > MAX_BYTES) throw new WeightsError('torch: the zip unpacks to more than 4 GiB: refused.');
    return true;
  };
  try {
    return unzipSync(bytes, { filter });
  } catch (error) {
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(`torch: the zip cannot be unpacked: ${(error as Error).message}.`);
  }
}

function readLegacy(bytes: Uint8Array): unknown {
  if (!looksLikeLegacyTorch(bytes)) throw new WeightsError('torch: neither a zip nor a legacy checkpoint.');
  let at = 0;
  const next = (): unknown => {
    const { value, end } = readPickle(bytes, options(), at);
    at = end;
    return value;
  };
  next(); // magic number
  next(); // protocol version
  next(); // system information
  const object = next();
  const keys = next() as unknown[];
  const storages = new Map<string, Uint8Array>();
  const types = new Map<string, ElementType>();
  visit(object, (t) => {
    types.set(t.storage.key, t.storage.type);
    return t;
  });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of keys.map(text)) {
    if (at + 8 > bytes.length) throw new WeightsError(`torch: the file ends before storage ${key}.`);
    const count = Number(view.getBigInt64(at, true));
    at += 8;
    const type = types.get(key);
    if (!type) throw new WeightsError(`torch: storage ${key} belongs to no tensor.`);
    const size = count * ELEMENT_BYTES[type];
    if (count < 0 || at + size > bytes.length)
      throw new WeightsError(`torch: storage ${key} claims ${count} elements, the file ends before.`);
    storages.set(key, bytes.subarray(at, at + size));
    at += size;
  }
  return resolve(object, (storage) => storages.get(storage.key)!);
}

function options(): PickleOptions {
  const rebuild: Global = (storage, offset, shape, strides) =>
    new LazyTensor(storage as Storage, offset as number, shape as number[], strides as number[]);
  return {
    global: (module, name) => {
      const path = `${module}.${name}`;
      if (path === 'collections.OrderedDict')
        return (pairs) => new Map((pairs as [unknown, unknown][]) ?? []);
      if (path === 'torch._utils._rebuild_tensor_v2' || path === 'torch._utils._rebuild_tensor')
        return rebuild;
      if (path === 'torch._utils._rebuild_parameter') return (tensor) => tensor;
      if (module === 'torch' && STORAGES[name]) return () => STORAGES[name];
      return numpyGlobal(module, name);
    },
    persistent: (id) => {
      const [kind, type, key, , count] = id as [unknown, { construct: Global }, unknown, unknown, number];
      if (text(kind) !== 'storage')
        throw new WeightsError(`torch: a persistent ${text(kind)} is not a storage.`);
      return { type: type.construct() as ElementType, key: text(key), count } satisfies Storage;
    },
    build: (target, state) => {
      // An OrderedDict's own state is its _metadata, which weights do not need.
      if (target instanceof Map) return target;
      return numpyBuild(target, state);
    },
  };
}

/** Rebuilds containers, passing every tensor through `f`. */
function visit(value: unknown, f: (t: LazyTensor) => unknown): unknown {
  if (value instanceof LazyTensor) return f(value);
  if (value instanceof Map) return new Map([...(value as PickleDict)].map(([k, v]) => [k, visit(v, f)]));
  if (Array.isArray(value)) return value.map((v) => visit(v, f));
  return value;
}

function resolve(value: unknown, bytesOf: (storage: Storage) => Uint8Array): unknown {
  return visit(value, (t): WeightTensor => {
    const { storage, offset, shape, strides } = t;
    const count = elementCount(shape);
    const last = shape.reduce((sum, n, k) => sum + (n - 1) * strides[k], offset);
    const bytes = bytesOf(storage);
    const width = ELEMENT_BYTES[storage.type];
    if (count > 0 && (offset < 0 || strides.some((s) => s < 0) || (last + 1) * width > bytes.length)) {
      throw new WeightsError(`torch: a tensor [${shape}] reaches outside its storage ${storage.key}.`);
    }
    const span = count > 0 ? last - offset + 1 : 0;
    const data = decodeElements(bytes.subarray(offset * width), storage.type, span);
    const order = shape.map((_, k) => k).sort((a, b) => strides[b] - strides[a] || a - b);
    const contiguous = order.every(
      (axis, i) =>
        strides[axis] === order.slice(i + 1).reduce((p, k) => p * shape[k], 1) || shape[axis] === 1,
    );
    if (!contiguous)
      throw new WeightsError(`torch: a tensor [${shape}] with strides [${strides}] is not contiguous.`);
    const stored = { shape: order.map((k) => shape[k]), data };
    return permute(
      stored,
      shape.map((_, k) => order.indexOf(k)),
    );
  });
}

/** The first dict of tensors in a checkpoint: itself, or under state_dict, net_state_dict, model, … */
export function findStateDict(object: unknown): Map<string, WeightTensor> | undefined {
  const isTensor = (v: unknown): v is WeightTensor =>
    typeof v === 'object' && v !== null && 'data' in v && 'shape' in v;
  if (!(object instanceof Map)) return undefined;
  const entries = [...object].filter(([, v]) => isTensor(v));
  if (entries.length > 0) return new Map(entries.map(([k, v]) => [text(k), v as WeightTensor]));
  for (const value of object.values()) {
    const found = findStateDict(value);
    if (found) return found;
  }
  return undefined;
}
