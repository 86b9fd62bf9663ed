/**
 * wfr: face recognition on WebGPU. This entry runs in Node and in pages; what reads and writes files is in
 * `wfr/node`.
 */
export type { Box } from './face/boxes.js';
export { alignFace, cropFace } from './face/crops.js';
export { type DetectOptions, type Face, Mtcnn } from './face/detector.js';
export { Embedder, type EmbedderOptions } from './face/embedder.js';
export { type BankEntry, Facebank } from './face/facebank.js';
export { GpuPicture, type PictureSource } from './face/gpu_picture.js';
export {
  cosine,
  DEFAULT_THRESHOLD,
  type Match,
  type MatchOptions,
  type MatchRule,
  match,
} from './face/match.js';
export { FaceRecognizer, mainFace, type NamedFace, type RecognizeOptions } from './face/recognizer.js';
export { GpuError, WfrError } from './gpu/errors.js';
export { Gpu, type GpuOptions, openGpu } from './gpu/gpu.js';
export type { PagePicture } from './gpu/page_picture.js';
export type { Tuning } from './gpu/traits.js';
export { type CompileOptions, compile, Executable } from './graph/executable.js';
export { Graph, type GraphOptions, type Tensor } from './graph/graph.js';
export { Model, type ModelOptions } from './graph/model.js';
export { ParameterStore, type ParameterValue, type ParameterValues } from './graph/parameters.js';
export { type TrainableOptions, TrainableParameters } from './graph/trainable.js';
export {
  planTraining,
  type StepStatus,
  type StepValues,
  type TrainingMemory,
  type TrainingOptions,
  TrainingStep,
} from './graph/training.js';
export { type MeasuredTuning, type TuneOptions, tuneProducts } from './kernels/conv2d/tune.js';
export type { OptimizerConfig } from './kernels/optimizer/update.js';
export { type Canvas2D, type DrawnFace, drawFaces } from './media/draw.js';
export type { Picture } from './media/picture.js';
export { describe, type NetDescription } from './nets/describe.js';
export { initialize } from './nets/initialize.js';
export { type IResNetConfig, iresnet } from './nets/iresnet.js';
export { GRAY128, MBF, type MobileFaceNetConfig, mobileFaceNet, PAPER } from './nets/mobilefacenet.js';
export { onet, pnet, rnet } from './nets/mtcnn.js';
export { type Augmentation, parseAugmentation } from './train/data/augment.js';
export { type MemoryPicture, MemorySource, type MemorySourceOptions } from './train/data/memory_source.js';
export { type Batch, type DataOrigin, type DataSource, UNLABELLED } from './train/data/source.js';
export type { Objective } from './train/objective.js';
export type { Recipe } from './train/recipe.js';
export { learningRate, type Schedule } from './train/schedule.js';
export {
  type CheckpointSink,
  DivergedError,
  type StepReport,
  Trainer,
  type TrainerOptions,
} from './train/trainer.js';
export { convert, type Weights } from './weights/convert.js';
export {
  type FetchProgress,
  type FetchWeightsOptions,
  fetchWeights,
  type WeightsUrl,
} from './weights/fetch.js';
export { readSafetensors, writeSafetensors } from './weights/formats/safetensors.js';
export type { WeightsMetadata } from './weights/metadata.js';
export { exportOnnx } from './weights/onnx/export.js';
export { readStateDict, readWeights } from './weights/read.js';
export type { StateDict, WeightTensor } from './weights/state_dict.js';
