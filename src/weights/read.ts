import { convert, type Weights } from './convert.js';
import { WeightsError } from './errors.js';
import { looksLikeMxnet, readMxnet } from './formats/mxnet.js';
import { looksLikeNpy, readNpy } from './formats/numpy.js';
import { text } from './formats/pickle.js';
import { looksLikeSafetensors, readSafetensors } from './formats/safetensors.js';
import { findStateDict, looksLikeLegacyTorch, looksLikeZip, readTorch } from './formats/torch.js';
import { metadataFromStrings } from './metadata.js';
import { looksLikeOnnx, readOnnx } from './onnx/read.js';
import type { StateDict, WeightTensor } from './state_dict.js';

/** Decodes a file in any known format, by its first bytes, to names and tensors. */
export function readStateDict(bytes: Uint8Array): StateDict {
  if (looksLikeSafetensors(bytes)) return readSafetensors(bytes).state;
  if (looksLikeZip(bytes) || looksLikeLegacyTorch(bytes)) {
    const state = findStateDict(readTorch(bytes));
    if (!state) throw new WeightsError('The checkpoint holds no dict of tensors.');
    return state;
  }
  if (looksLikeNpy(bytes)) {
    const content = readNpy(bytes);
    const object = 'object' in content ? content.object : undefined;
    if (!(object instanceof Map))
      throw new WeightsError('The .npy file holds an array, not a dict of arrays.');
    return new Map([...object].map(([name, tensor]) => [text(name), tensor as WeightTensor]));
  }
  if (looksLikeMxnet(bytes)) return readMxnet(bytes);
  if (looksLikeOnnx(bytes)) return readOnnx(bytes);
  throw new WeightsError(
    'Not a weights file of a known format (safetensors, PyTorch, npy with a dict, MXNet params, ONNX).',
  );
}

/** Reads one file, or the three files of an MTCNN, converting public layouts to this project's names. */
export function readWeights(files: readonly Uint8Array[]): Weights {
  if (files.length === 1 && looksLikeSafetensors(files[0])) {
    const { state, metadata } = readSafetensors(files[0]);
    const known = metadataFromStrings(metadata);
    if (known) return { state, metadata: known };
  }
  return convert(files.map(readStateDict));
}
