import type { Graph, GraphOptions } from '../graph/graph.js';
import { type IResNetConfig, iresnet } from './iresnet.js';
import { type MobileFaceNetConfig, mobileFaceNet, PAPER } from './mobilefacenet.js';

/** A recogniser as its weights' metadata describe it. */
export interface Recogniser {
  /** The net's graph for an input [N, height, width, channels]; output `embedding` [N, dimension]. */
  build: (shape: readonly number[], options?: GraphOptions) => Graph;
  height: number;
  width: number;
  channels: number;
  dimension: number;
  preprocessing: { mean: number; scale: number; order: 'rgb' | 'bgr' | 'gray' };
}

export interface RecogniserDescription {
  config?: Record<string, unknown>;
  input?: { height: number; width: number };
  preprocessing?: Recogniser['preprocessing'];
}

/** @returns undefined when the name is no recogniser's. */
export function recogniserOf(net: string, d: RecogniserDescription): Recogniser | undefined {
  const { height, width } = d.input ?? { height: 112, width: 112 };
  const preprocessing = d.preprocessing ?? { mean: 127.5, scale: 1 / 127.5, order: 'rgb' as const };
  const common = { height, width, channels: preprocessing.order === 'gray' ? 1 : 3, preprocessing };
  if (net === 'mobilefacenet') {
    const config = { ...PAPER, ...(d.config as Partial<MobileFaceNetConfig>) };
    return {
      ...common,
      build: (shape, options) => mobileFaceNet(shape, config, options),
      dimension: config.embedding,
    };
  }
  if (net === 'iresnet') {
    const config = { depth: 50, ...d.config } as IResNetConfig;
    return {
      ...common,
      build: (shape, options) => iresnet(shape, config, options),
      dimension: config.embedding ?? 512,
    };
  }
  return undefined;
}
