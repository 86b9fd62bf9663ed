/**
 * MobileFaceNet (Chen, Liu, Gao & Han 2018, "MobileFaceNets: efficient CNNs for accurate real-time face
 * verification on mobile devices"): [N, H, W, C] → `embedding` [N, D], not normalised.
 *
 * stem conv3 s2 → `dw` conv3 in groups → inverted residual blocks (1×1 expand, 3×3 depthwise, 1×1 project,
 * the last without activation) → 1×1 `head` → global depthwise `gdc` without activation → dense `embedding` → BN.
 *
 * State-dict names: stem, dw, blocks.{i}.{expand, depthwise, project}, head, gdc, each with .conv.weight,
 * .bn.* and, where activated, .prelu.weight; then embedding.weight [D, features] (and embedding.bias where the
 * variant has one), embedding_bn.*.
 */
import { Graph, type GraphOptions, type Tensor } from '../graph/graph.js';
import { type ConvOptions, conv, norm, prelu } from './layers.js';

export interface MobileFaceNetBlock {
  /** Channels inside the block. */
  expand: number;
  outputs: number;
  stride: number;
}

export interface MobileFaceNetConfig {
  /** Channels after the stem. */
  stem: number;
  /** Groups of the second layer: as many as `stem` makes it depthwise. */
  stemGroups: number;
  blocks: readonly MobileFaceNetBlock[];
  head: number;
  embedding: number;
  embeddingBias: boolean;
  /** Side of the global depthwise filter; by default the whole map. */
  gdcKernel?: number;
  eps: number;
  embeddingEps: number;
}

/** The stages of the paper, widths times `scale`; expansions inside the blocks do not scale. */
export function mobileFaceNetBlocks(
  scale: number,
  [a, b, c]: readonly [number, number, number],
): MobileFaceNetBlock[] {
  const stage = (first: number, inner: number, outputs: number, count: number): MobileFaceNetBlock[] => [
    { expand: first, outputs, stride: 2 },
    ...Array.from({ length: count }, () => ({ expand: inner, outputs, stride: 1 })),
  ];
  return [
    ...stage(128, 128, 64 * scale, a),
    ...stage(256, 256, 128 * scale, b),
    ...stage(512, 256, 128 * scale, c),
  ];
}

/** The paper's net, as the public PyTorch and MXNet weights have it too. */
export const PAPER: MobileFaceNetConfig = {
  stem: 64,
  stemGroups: 64,
  blocks: mobileFaceNetBlocks(1, [4, 6, 2]),
  head: 512,
  embedding: 128,
  embeddingBias: false,
  eps: 1e-5,
  embeddingEps: 1e-5,
};

/** InsightFace's `mbf`: twice as wide, the second layer in 64 true groups, 512 numbers. */
export const MBF: MobileFaceNetConfig = {
  ...PAPER,
  stem: 128,
  blocks: mobileFaceNetBlocks(2, [4, 6, 2]),
  embedding: 512,
};

/** Grayscale 128×128 input: the 7×7 filter leaves a 2×2 map, and 2·2·512 features become 512 numbers. */
export const GRAY128: MobileFaceNetConfig = { ...PAPER, embedding: 512, gdcKernel: 7 };

export function mobileFaceNet(
  [n, h, w, c]: readonly number[],
  config: MobileFaceNetConfig = PAPER,
  options: GraphOptions = {},
): Graph {
  const g = new Graph('mobilefacenet', options);
  const { eps } = config;
  const layer = (
    name: string,
    x: Tensor,
    outputs: number,
    options: ConvOptions,
    activated = true,
  ): Tensor => {
    const y = norm(g, `${name}.bn`, conv(g, `${name}.conv`, x, outputs, options), eps);
    return activated ? prelu(g, `${name}.prelu`, y) : y;
  };

  let x = layer('stem', g.input('x', [n, h, w, c]), config.stem, { kernel: 3, stride: 2, padding: 1 });
  x = layer('dw', x, config.stem, { kernel: 3, padding: 1, groups: config.stemGroups });
  for (const [i, { expand, outputs, stride }] of config.blocks.entries()) {
    let y = layer(`blocks.${i}.expand`, x, expand, { kernel: 1 });
    y = layer(`blocks.${i}.depthwise`, y, expand, { kernel: 3, stride, padding: 1, groups: expand });
    y = layer(`blocks.${i}.project`, y, outputs, { kernel: 1 }, false);
    x = stride === 1 && x.shape[3] === outputs ? g.add2(y, x) : y;
  }
  x = layer('head', x, config.head, { kernel: 1 });
  x = globalDepthwise(g, x, config);
  const map = x.shape.slice(1);
  const features = map.reduce((a, b) => a * b, 1);
  const weight = g.parameter('embedding.weight', [config.embedding, features], 'dense', {
    order: 'chw',
    map,
  });
  const bias = config.embeddingBias ? g.parameter('embedding.bias', [config.embedding], 'vector') : undefined;
  g.output('embedding', norm(g, 'embedding_bn', g.dense(x, weight, bias), config.embeddingEps));
  return g;
}

/** A depthwise filter as large as the map (not square for 112×96 input) unless the configuration says otherwise. */
function globalDepthwise(g: Graph, x: Tensor, config: MobileFaceNetConfig): Tensor {
  const [, h, w, channels] = x.shape;
  const [kh, kw] = config.gdcKernel ? [config.gdcKernel, config.gdcKernel] : [h, w];
  const weight = g.parameter('gdc.conv.weight', [channels, 1, kh, kw], 'depthwise');
  return norm(g, 'gdc.bn', g.conv2d(x, weight, { groups: channels }), config.eps);
}
