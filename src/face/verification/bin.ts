/**
 * InsightFace's `.bin` packs (lfw.bin, cfp_fp.bin, agedb_30.bin): a pickle of (encoded pictures, labels), two
 * pictures a pair, aligned at 112×112. Read by this project's own restricted pickle reader, which runs nothing.
 */
import { NumpyArray, numpyBuild, numpyGlobal } from '../../weights/formats/numpy.js';
import { readPickle, text } from '../../weights/formats/pickle.js';
import { FaceError } from '../errors.js';

export interface BinPack {
  /** Encoded pictures (JPEG or PNG): pair i is pictures 2i and 2i + 1. */
  pictures: Uint8Array[];
  same: boolean[];
}

const MAX_BYTES = 2 ** 31 - 1;

/** @throws FaceError when the file is no pack, or counts do not match. */
export function readBin(bytes: Uint8Array, name = 'the pack'): BinPack {
  if (bytes.length > MAX_BYTES) throw new FaceError(`${name} is larger than 2 GiB.`);
  let value: unknown;
  try {
    ({ value } = readPickle(bytes, { global: numpyGlobal, build: numpyBuild }));
  } catch (error) {
    throw new FaceError(
      `${name} is no InsightFace pack (a pickle of pictures and labels): ${(error as Error).message}`,
    );
  }
  if (!Array.isArray(value) || value.length !== 2) {
    throw new FaceError(`${name} holds ${describe(value)}; a pair of (pictures, labels) was expected.`);
  }
  const pictures = items(value[0]);
  const labels = items(value[1]);
  if (!pictures || !labels) {
    throw new FaceError(
      `${name} holds ${describe(value[0])} and ${describe(value[1])}; two lists were expected.`,
    );
  }
  if (pictures.length !== 2 * labels.length) {
    throw new FaceError(
      `${name} holds ${pictures.length} pictures for ${labels.length} pairs; two a pair were expected.`,
    );
  }
  if (labels.length === 0) throw new FaceError(`${name} holds no pairs.`);
  return {
    pictures: pictures.map((picture, i) => {
      const encoded = asBytes(picture);
      if (!encoded)
        throw new FaceError(
          `${name}: picture ${i + 1} is ${describe(picture)}; an encoded picture was expected.`,
        );
      return encoded;
    }),
    same: labels.map((label, i) => {
      if (label !== true && label !== false && label !== 0 && label !== 1) {
        throw new FaceError(`${name}: label ${i + 1} is ${String(label)}; True or False was expected.`);
      }
      return Boolean(label);
    }),
  };
}

function items(value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value;
  if (value instanceof NumpyArray) return value.objects ?? [...value.data];
  return undefined;
}

/** Bytes, a Python 2 string, or a NumPy array of u1, which the array reader has decoded to numbers. */
function asBytes(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'string') return Uint8Array.from(text(value), (c) => c.charCodeAt(0));
  if (value instanceof NumpyArray) return Uint8Array.from(value.data);
  return undefined;
}

const describe = (value: unknown): string =>
  Array.isArray(value)
    ? `a list of ${value.length}`
    : value instanceof NumpyArray
      ? `an array [${value.shape}]`
      : typeof value;
