/** NumPy arrays: inside pickles (`_reconstruct` + state), and `.npy` files, plain or holding one pickled object. */
import { WeightsError } from '../errors.js';
import {
  decodeElements,
  ELEMENT_BYTES,
  type ElementType,
  elementCount,
  permute,
  type WeightTensor,
} from '../state_dict.js';
import { type Global, type PickleOptions, readPickle, text } from './pickle.js';

const TYPES: Record<string, ElementType> = {
  f8: 'f64',
  f4: 'f32',
  f2: 'f16',
  i8: 'i64',
  i4: 'i32',
  i2: 'i16',
  i1: 'i8',
  u1: 'u8',
  b1: 'bool',
};

export class NumpyType {
  order = '<';
  constructor(readonly code: string) {}
}

export class NumpyArray implements WeightTensor {
  shape: readonly number[] = [];
  data = new Float32Array(0);
  /** Elements of an object array. */
  objects: unknown[] | undefined;
}

/** Constructors that a pickled array needs; combine with a caller's own. */
export function numpyGlobal(module: string, name: string): Global | undefined {
  const path = `${module}.${name}`;
  if (
    /^numpy(\._?core)?\.(multiarray|numeric)\._reconstruct$/.test(path) ||
    /^numpy\._?core\.multiarray\._reconstruct$/.test(path)
  ) {
    return () => new NumpyArray();
  }
  if (path === 'numpy.ndarray') return () => new NumpyArray();
  if (path === 'numpy.dtype') return (code) => new NumpyType(text(code));
  if (/^numpy\._?core\.multiarray\.scalar$/.test(path)) {
    return (type, bytes) => decode(type as NumpyType, asBytes(bytes), 1)[0];
  }
  // Protocol 2 under Python 3 writes bytes as an encoded string.
  if (path === '_codecs.encode') return (value) => Uint8Array.from(text(value), (c) => c.charCodeAt(0));
  return undefined;
}

export function numpyBuild(target: unknown, state: unknown): unknown {
  if (target instanceof NumpyType && Array.isArray(state)) {
    target.order = text(state[1]);
    return target;
  }
  if (target instanceof NumpyArray && Array.isArray(state)) {
    const [, shape, type, fortran, content] = state as [unknown, number[], NumpyType, boolean, unknown];
    if (type.code.startsWith('O')) {
      target.objects = content as unknown[];
      target.shape = shape;
      return target;
    }
    const data = decode(type, asBytes(content), elementCount(shape));
    Object.assign(target, fortran ? fromFortran(shape, data) : { shape, data });
    return target;
  }
  throw new WeightsError('pickle: state for an object that is not a NumPy array or type: refused.');
}

export const numpyPickle: PickleOptions = { global: numpyGlobal, build: numpyBuild };

/** @returns an array, or for an object array the pickled object itself. */
export function readNpy(bytes: Uint8Array): WeightTensor | { object: unknown } {
  if (!looksLikeNpy(bytes)) throw new WeightsError('npy: the file does not begin with NumPy’s magic bytes.');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[6] > 1;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = wide ? 12 : 10;
  if (start + length > bytes.length) throw new WeightsError('npy: the file ends inside its header.');
  const header = new TextDecoder('latin1').decode(bytes.subarray(start, start + length));
  const descr = /'descr':\s*'([^']+)'/.exec(header)?.[1];
  const fortran = /'fortran_order':\s*True/.test(header);
  const dims = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1];
  if (!descr || dims === undefined) throw new WeightsError(`npy: unreadable header ${header.trim()}`);
  const shape = dims
    .split(',')
    .filter((s) => s.trim())
    .map(Number);
  const body = bytes.subarray(start + length);
  if (descr.includes('O')) {
    const { value } = readPickle(body, numpyPickle);
    const object = value instanceof NumpyArray ? value.objects : value;
    return { object: Array.isArray(object) && shape.length === 0 ? object[0] : object };
  }
  const type = new NumpyType(descr.replace(/^[<>=|]/, ''));
  if (/^>/.test(descr)) type.order = '>';
  const data = decode(type, body, elementCount(shape));
  return fortran ? fromFortran(shape, data) : { shape, data };
}

export const looksLikeNpy = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x93 && bytes[1] === 0x4e && bytes[2] === 0x55;

function decode(type: NumpyType, bytes: Uint8Array, count: number): Float32Array {
  const element = TYPES[type.code.replace(/^[<>=|]/, '')];
  if (!element || type.order === '>')
    throw new WeightsError(`numpy: element type ${type.order}${type.code} is not supported.`);
  if (bytes.length < count * ELEMENT_BYTES[element]) {
    throw new WeightsError(
      `numpy: ${count} elements of ${type.code} need ${count * ELEMENT_BYTES[element]} bytes, ${bytes.length} are there.`,
    );
  }
  return decodeElements(bytes, element, count);
}

const asBytes = (value: unknown): Uint8Array =>
  value instanceof Uint8Array ? value : Uint8Array.from(text(value), (c) => c.charCodeAt(0));

/** Column-major data of `shape` is row-major data of the reversed shape. */
function fromFortran(shape: readonly number[], data: Float32Array): WeightTensor {
  const reversed = { shape: [...shape].reverse(), data };
  return permute(
    reversed,
    shape.map((_, i) => shape.length - 1 - i),
  );
}
