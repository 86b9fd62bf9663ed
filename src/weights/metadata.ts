/**
 * What a weights file says about itself. Stored as strings in the safetensors header, so that other tools show
 * it too.
 */
export interface WeightsMetadata {
  /** `mtcnn`, `mobilefacenet` or `iresnet`. */
  net: string;
  /** JSON of the net's configuration (MobileFaceNetConfig, IResNetConfig), absent where there is only one. */
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

const JSON_KEYS = ['config', 'input', 'preprocessing', 'threshold'] as const;

export function metadataToStrings(metadata: WeightsMetadata): Record<string, string> {
  const out: Record<string, string> = { format: 'pt' };
  for (const [key, value] of Object.entries(metadata)) {
    if (value !== undefined) out[key] = typeof value === 'string' ? value : JSON.stringify(value);
  }
  return out;
}

/** @returns undefined when the header names no net (a file from elsewhere). */
export function metadataFromStrings(strings: Readonly<Record<string, string>>): WeightsMetadata | undefined {
  if (!strings.net) return undefined;
  const metadata: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(strings)) {
    if (key === 'format') continue;
    if (!(JSON_KEYS as readonly string[]).includes(key)) metadata[key] = value;
    else {
      try {
        metadata[key] = JSON.parse(value);
      } catch {
        // A broken optional field is as good as none; the net itself is checked against the tensors.
      }
    }
  }
  return metadata as unknown as WeightsMetadata;
}
