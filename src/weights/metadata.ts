import { WeightsError } from './errors.js';

/**
 * What a weights file says about itself. Stored as strings in the safetensors header or among an ONNX model's
 * properties, so that other tools show it too.
 */
export interface WeightsMetadata {
  /** `mtcnn`, `mobilefacenet` or `iresnet`. */
  net: string;
  /** JSON of the net's configuration (MobileFaceNetConfig, IResNetConfig; an MTCNN's `thresholds`, `secondLook` and `voteBoxes`, see DetectOptions), absent where there is only one. */
  config?: Record<string, unknown>;
  /** Name for people, e.g. where the weights come from. */
  title?: string;
  version?: string;
  /** Input height and width in pixels. */
  input?: { height: number; width: number };
  /** value = (v − mean)·scale for bytes 0…255, in this order of channels. */
  preprocessing?: { mean: number; scale: number; order: 'rgb' | 'bgr' | 'gray' };
  /** Cosine similarity from which two faces count as one person, and how it was chosen. */
  threshold?: {
    similarity: number;
    basis: string;
    /** Shares of different-person and same-person pairs accepted at it, on the pairs it was calibrated on. */
    far?: number;
    tar?: number;
    /** The same for other thresholds, by falling rate of false accepts. */
    curve?: { similarity: number; far: number; tar: number }[];
  };
  data?: string;
  licence?: string;
}

/** Longest value, in characters: files come from anywhere. */
const MAX_VALUE = 256 * 1024;

const isNumber = (v: unknown): v is number => typeof v === 'number' && Number.isFinite(v);
const isSide = (v: unknown) => isNumber(v) && Number.isInteger(v) && v >= 1 && v <= 8192;
const isRecord = (v: unknown): v is Record<string, unknown> =>
  typeof v === 'object' && v !== null && !Array.isArray(v);
const isRate = (v: unknown) => v === undefined || (isNumber(v) && v >= 0 && v <= 1);

/** Numbers, switches and names, lists of them and of such records: all that nets are described with. */
function isSetting(v: unknown, depth = 0): boolean {
  if (isNumber(v) || typeof v === 'boolean' || typeof v === 'string') return true;
  if (depth > 3 || typeof v !== 'object' || v === null) return false;
  return Object.values(v).every((part) => isSetting(part, depth + 1));
}

/** The keys stored as JSON: what each must be, in words and as a test. */
const JSON_KEYS: Record<string, { must: string; test: (v: unknown) => boolean }> = {
  config: {
    must: 'an object of numbers, booleans and lists',
    test: (v) => isRecord(v) && isSetting(v),
  },
  input: {
    must: 'height and width from 1 to 8192',
    test: (v) => isRecord(v) && isSide(v.height) && isSide(v.width),
  },
  preprocessing: {
    must: 'a mean, a scale, and an order rgb, bgr or gray',
    test: (v) =>
      isRecord(v) &&
      isNumber(v.mean) &&
      isNumber(v.scale) &&
      ['rgb', 'bgr', 'gray'].includes(v.order as string),
  },
  threshold: {
    must: 'a similarity, a basis in words, and rates from 0 to 1',
    test: (v) =>
      isRecord(v) &&
      isNumber(v.similarity) &&
      typeof v.basis === 'string' &&
      isRate(v.far) &&
      isRate(v.tar) &&
      (v.curve === undefined ||
        (Array.isArray(v.curve) &&
          v.curve.every(
            (p) =>
              isRecord(p) && [p.similarity, p.far, p.tar].every(isNumber) && isRate(p.far) && isRate(p.tar),
          ))),
  },
};

export function metadataToStrings(metadata: WeightsMetadata): Record<string, string> {
  const out: Record<string, string> = { format: 'pt' };
  for (const [key, value] of Object.entries(metadata)) {
    if (value !== undefined) out[key] = typeof value === 'string' ? value : JSON.stringify(value);
  }
  return out;
}

/**
 * @returns undefined when no net is named (a file from elsewhere).
 * @throws WeightsError when a value is too long, is not JSON, or is of another type than its key wants.
 */
export function metadataFromStrings(strings: Readonly<Record<string, string>>): WeightsMetadata | undefined {
  if (!strings.net) return undefined;
  const metadata: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(strings)) {
    if (key === 'format') continue;
    if (typeof value !== 'string' || value.length > MAX_VALUE)
      throw new WeightsError(`metadata: ${key} must be text of at most ${MAX_VALUE} characters.`);
    const wanted = Object.hasOwn(JSON_KEYS, key) ? JSON_KEYS[key] : undefined;
    metadata[key] = wanted ? parsed(key, value, wanted) : value;
  }
  return metadata as unknown as WeightsMetadata;
}

function parsed(key: string, value: string, { must, test }: (typeof JSON_KEYS)[string]): unknown {
  let content: unknown;
  try {
    content = JSON.parse(value);
  } catch {
    // Refused below, as undefined.
  }
  if (!test(content))
    throw new WeightsError(`metadata: ${key} must be JSON of ${must}, not ${value.slice(0, 80)}`);
  return content;
}
