/** The similarity from which faces count as one person, for a wished share of false accepts. */
import { WeightsError } from '../../weights/errors.js';
import { looksLikeSafetensors } from '../../weights/formats/safetensors.js';
import type { WeightsMetadata } from '../../weights/metadata.js';
import { FaceError } from '../errors.js';
import {
  atFalseAcceptRate,
  REJECT_ALL,
  type ScoredPairs,
  type Sweep,
  similarityOf,
  sweep,
} from './metrics.js';

export type Threshold = NonNullable<WeightsMetadata['threshold']>;

/** False-accept rates of the curve that goes with a threshold; those that the pairs cannot measure are left out. */
const CURVE = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001];

/**
 * The threshold for a wished FAR on these pairs, halfway between the last pair accepted and the next different
 * pair, with the curve around it.
 * @param basis what the pairs are, for people: it is shown wherever the threshold is used.
 * @throws FaceError when the pairs are too few to measure that rate.
 */
export function calibrate(pairs: ScoredPairs, wished: number, basis: string): Threshold {
  const s = sweep(pairs);
  if (!(wished > 0 && wished < 1))
    throw new FaceError(`A false-accept rate lies between 0 and 1; got ${wished}.`);
  if (wished * s.different < 1) {
    throw new FaceError(
      `${s.different} pairs of different people cannot measure a false-accept rate of ${wished}: the least they can is ${(1 / Math.max(1, s.different)).toPrecision(2)}. Use more pairs or a larger rate.`,
    );
  }
  const curve = CURVE.filter((far) => far * s.different >= 1).map((far) => pointAt(s, far));
  return { ...pointAt(s, wished), basis, curve };
}

function pointAt(s: Sweep, wished: number): { similarity: number; far: number; tar: number } {
  const { threshold, far, tar } = atFalseAcceptRate(s, wished);
  const next = s.thresholds[threshold === REJECT_ALL ? 0 : s.thresholds.indexOf(threshold) + 1];
  // Without a next pair every pair is accepted; without an accepted one the threshold lies below the nearest.
  const distance = next === undefined ? threshold : (Math.max(0, threshold) + next) / 2;
  const round = (v: number) => Number(v.toFixed(5));
  return { similarity: round(similarityOf(distance)), far: round(far), tar: round(tar) };
}

/**
 * The same safetensors file with another threshold in its metadata; tensors stay byte for byte.
 * @throws WeightsError when the file is no safetensors file of this project.
 */
export function withThreshold(file: Uint8Array, threshold: Threshold): Uint8Array {
  if (!looksLikeSafetensors(file)) {
    throw new WeightsError(
      'A threshold can be written only into safetensors files, whose metadata hold it. Convert these weights first: wfr weights convert.',
    );
  }
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<
    string,
    unknown
  >;
  const metadata = header.__metadata__ as Record<string, string> | undefined;
  if (!metadata?.net) {
    throw new WeightsError(
      'This safetensors file does not say which net it holds, so a threshold in it would not be read. Convert it first: wfr weights convert.',
    );
  }
  const changed = { ...header, __metadata__: { ...metadata, threshold: JSON.stringify(threshold) } };
  let text = JSON.stringify(changed);
  const encoder = new TextEncoder();
  // Tensors begin at a multiple of eight; the format pads its header with blanks.
  text += ' '.repeat((8 - (encoder.encode(text).length % 8)) % 8);
  const head = encoder.encode(text);
  const body = file.subarray(8 + length);
  const out = new Uint8Array(8 + head.length + body.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  out.set(body, 8 + head.length);
  return out;
}
