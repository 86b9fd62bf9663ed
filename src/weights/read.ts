import { convert, joinMtcnn, type Weights } from './convert.js';
import { WeightsError } from './errors.js';
import { looksLikeMxnet, readMxnet } from './formats/mxnet.js';
import { looksLikeNpy, readNpy } from './formats/numpy.js';
import { text } from './formats/pickle.js';
import { looksLikeSafetensors, readSafetensors } from './formats/safetensors.js';
import { findStateDict, looksLikeLegacyTorch, looksLikeZip, readTorch } from './formats/torch.js';
import { metadataFromStrings } from './metadata.js';
import { looksLikeOnnx, ownState, readOnnx } from './onnx/read.js';
import type { StateDict, WeightTensor } from './state_dict.js';

/** Decodes a file in any known format, by its first bytes, to names and tensors. */
export const readStateDict = (bytes: Uint8Array): StateDict => decode(bytes).state;

/** Reads one file, or the three files of an MTCNN, converting public layouts to this project's names. */
export function readWeights(files: readonly Uint8Array[]): Weights {
  const decoded = files.map(decode);
  const own = decoded.map((d) => d.own?.());
  if (own.length > 0 && own.every((w) => w?.metadata.net === 'mtcnn')) return joinMtcnn(own as Weights[]);
  if (own.length === 1 && own[0]) return own[0];
  return convert(decoded.map((d) => d.state));
}

interface Decoded {
  state: StateDict;
  /** What this project wrote, by the metadata in it; undefined for files from elsewhere. */
  own?(): Weights | undefined;
}

function decode(bytes: Uint8Array): Decoded {
  if (looksLikeSafetensors(bytes)) {
    const { state, metadata } = readSafetensors(bytes);
    return { state, own: () => withMetadata(metadata, () => state) };
  }
  if (looksLikeZip(bytes) || looksLikeLegacyTorch(bytes)) {
    const state = findStateDict(readTorch(bytes));
    if (!state) throw new WeightsError('The checkpoint holds no dict of tensors.');
    return { state };
  }
  if (looksLikeNpy(bytes)) {
    const content = readNpy(bytes);
    const object = 'object' in content ? content.object : undefined;
    if (!(object instanceof Map))
      throw new WeightsError('The .npy file holds an array, not a dict of arrays.');
    return { state: new Map([...object].map(([name, tensor]) => [text(name), tensor as WeightTensor])) };
  }
  if (looksLikeMxnet(bytes)) return { state: readMxnet(bytes) };
  if (looksLikeOnnx(bytes)) {
    const { state, metadata } = readOnnx(bytes);
    return { state, own: () => withMetadata(metadata, () => ownState(state)) };
  }
  throw new WeightsError(
    'Not a weights file of a known format (safetensors, PyTorch, npy with a dict, MXNet params, ONNX).',
  );
}

function withMetadata(
  strings: Parameters<typeof metadataFromStrings>[0],
  state: () => StateDict,
): Weights | undefined {
  const metadata = metadataFromStrings(strings);
  return metadata && { state: state(), metadata };
}
