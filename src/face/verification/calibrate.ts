/** The similarity from which faces count as one person, for a wished share of false accepts. */
import { WeightsError } from '../../weights/errors.js';
import { looksLikeSafetensors } from '../../weights/formats/safetensors.js';
import type { WeightsMetadata } from '../../weights/metadata.js';
import { FaceError } from '../errors.js';
import {
  atFalseAcceptRate,
  measurable,
  REJECT_ALL,
  type ScoredPairs,
  type Sweep,
  similarityOf,
  sweep,
} from './metrics.js';

export type Threshold = NonNullable<WeightsMetadata['threshold']>;

/** False-accept rates of the curve that goes with a threshold; those that the pairs cannot measure are left out. */
const CURVE = [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001];

/** Fewer false accepts than these make a rate that the next pairs would contradict. */
const LEAST_FALSE_ACCEPTS = 10;

/** @throws FaceError when so many pairs of different people give too few false accepts at this rate to rely on. */
export function requireEnoughPairs(different: number, wished: number): void {
  if (!(wished > 0 && wished < 1))
    throw new FaceError(`A false-accept rate lies between 0 and 1, e.g. 0.01; got ${wished}.`);
  const needed = Math.ceil(LEAST_FALSE_ACCEPTS / wished - 1e-6);
  if (different >= needed) return;
  const least =
    different > LEAST_FALSE_ACCEPTS
      ? `; the least that these can is ${(Math.ceil((1e4 * LEAST_FALSE_ACCEPTS) / different) / 1e4).toString()}`
      : '';
  throw new FaceError(
    `${different} pairs of different people are too few for a threshold at a false-accept rate of ${wished}: it takes ${needed} (${LEAST_FALSE_ACCEPTS} false accepts)${least}. Use more pairs or a larger rate.`,
  );
}

/**
 * The threshold for a wished FAR on these pairs, halfway between the last pair accepted and the next different
 * pair, with the curve around it.
 * @param basis what the pairs are, for people: it is shown wherever the threshold is used.
 * @throws FaceError when the pairs of different people are fewer than 10 / wished.
 */
export function calibrate(pairs: ScoredPairs, wished: number, basis: string): Threshold {
  const s = sweep(pairs);
  requireEnoughPairs(s.different, wished);
  const curve = CURVE.filter((far) => measurable(far, s.different)).map((far) => pointAt(s, far));
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
