// What a trainer is told and what it tells.
import type { ParameterValue } from '../graph/parameters.js';

/** Where checkpoints go and come from: files in Node (CheckpointStore), anything in a page. */
export interface CheckpointSink {
  save(checkpoint: {
    step: number;
    state: Record<string, unknown>;
    buffers: Record<string, ArrayBuffer>;
  }): Promise<unknown>;
  latest(): Promise<
    { step: number; state: Record<string, unknown>; buffers: Record<string, ArrayBuffer> } | undefined
  >;
}

/** What is known after a step. */
export interface StepReport {
  /** Steps done. */
  step: number;
  epoch: number;
  learningRate: number;
  loss: number;
  /** Share of the batch's labelled pictures whose nearest class is their own. */
  accuracy?: number;
  /** Cross-entropy over identities. */
  identityLoss?: number;
  /** 1 − cosine to the teacher, mean over the batch. */
  distance?: number;
  /** Mean squared difference of similarities. */
  relation?: number;
  /** Since the step before, waiting for data included. */
  seconds: number;
  /** Of them, spent waiting for data. */
  waited: number;
}

export interface TrainerOptions {
  /** Weights to begin with, by name; what they lack is initialised. */
  init?: ReadonlyMap<string, ParameterValue>;
  /** What messages call them. */
  initName?: string;
  checkpoints?: CheckpointSink;
  /** Steps between checkpoints. Default 500. */
  checkpointEvery?: number;
  /** Watch every layer at every step and stop at the first value that is not finite. Slow. */
  detectAnomaly?: boolean;
}

export interface RunOptions {
  /** Stops after the steps that the device has, `inFlight` at most, with a checkpoint. */
  signal?: AbortSignal;
  /** Stop after this step, as if the run were that long; the schedule does not change. */
  until?: number;
  /**
   * After each step. The device is a batch ahead by then, so that weights read and checkpoints made in it are of the next
   * step: with `inFlight` 1 they are of this one.
   */
  onStep?: (report: StepReport) => void | Promise<void>;
  /** Batches that the device has at once. Default 2: it need not wait for the host between two of them. */
  inFlight?: number;
  /** After each epoch and at the end; the checkpoint of that step is on the disk by then. */
  onEpoch?: (epoch: number, step: number) => void | Promise<void>;
}
