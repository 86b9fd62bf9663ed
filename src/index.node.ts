/** What needs Node beside the neutral entry: files, folders, fonts. */

export { addToBank, type BankOptions, type LoadedBank, loadBank } from './face/facebank.node.js';
export * from './index.js';
export { encodePicture, type OutputFormat, renderAnnotated, writePicture } from './media/annotate.node.js';
export { type DecodeOptions, decodePicture, readPicture } from './media/decode.node.js';
export { expandInputs, writeAtomically } from './media/files.node.js';
export { CheckpointStore, readCheckpoint } from './train/checkpoint.node.js';
export { openSets } from './train/data/open.node.js';
export { PackedSource, type PackedSourceOptions } from './train/data/packed_source.node.js';
export { type LoadedWeights, loadWeights } from './weights/load.node.js';
export { pull } from './weights/pull.node.js';
export { openWeights, saveWeights } from './weights/save.node.js';
