/**
 * iResNet (Duta, Liu, Zhu & Shao 2020, "Improved residual networks", in the form that ArcFace training uses):
 * [N, 112, 112, 3] → `embedding` [N, 512], not normalised.
 *
 * Stem conv3 3→64, BN, PReLU. Four stages of widths 64, 128, 256, 512, each beginning with stride 2. Block: BN,
 * conv3, BN, PReLU, conv3 (stride), BN, + shortcut (1×1 conv + BN in a stage's first block). Head: BN, dropout
 * in training, flatten (C, H, W), dense, BN.
 */
import { Graph, type GraphOptions, type Tensor } from '../graph/graph.js';
import { conv, norm, prelu } from './layers.js';

export type IResNetDepth = 18 | 34 | 50 | 100;

const BLOCKS: Record<IResNetDepth, readonly number[]> = {
  18: [2, 2, 2, 2],
  34: [3, 4, 6, 3],
  50: [3, 4, 14, 3],
  100: [3, 13, 30, 3],
};
const WIDTHS = [64, 128, 256, 512];

export interface IResNetConfig {
  depth: IResNetDepth;
  /** Length of the embedding. Default 512. */
  embedding?: number;
  /** Share of features dropped before the dense layer in training. Default 0. */
  dropout?: number;
  /** Blocks of each stage instead of those of `depth` (tests). */
  blocks?: readonly number[];
  /** Channels of each stage instead of 64, 128, 256, 512 (tests). */
  widths?: readonly number[];
}

export function iresnet(
  [n, h, w]: readonly number[],
  config: IResNetConfig,
  options: GraphOptions = {},
): Graph {
  const embedding = config.embedding ?? 512;
  const g = new Graph(`iresnet${config.depth}`, options);
  let x = g.input('x', [n, h, w, 3]);
  const widths = config.widths ?? WIDTHS;
  x = prelu(g, 'prelu', norm(g, 'bn1', conv(g, 'conv1', x, widths[0], { kernel: 3, padding: 1 })));
  for (const [stage, count] of (config.blocks ?? BLOCKS[config.depth]).entries()) {
    for (let i = 0; i < count; i++) x = block(g, `layer${stage + 1}.${i}`, x, widths[stage], i === 0);
  }
  x = g.dropout(norm(g, 'bn2', x), config.dropout ?? 0);
  const map = x.shape.slice(1);
  const features = map.reduce((a, b) => a * b, 1);
  const weight = g.parameter('fc.weight', [embedding, features], 'dense', { order: 'chw', map });
  x = g.dense(x, weight, g.parameter('fc.bias', [embedding], 'vector'));
  g.output('embedding', norm(g, 'features', x));
  return g;
}

function block(g: Graph, name: string, x: Tensor, width: number, first: boolean): Tensor {
  const stride = first ? 2 : 1;
  // Built before the main path: the residual addition is fused into the last convolution, which needs it.
  const shortcut = first
    ? norm(g, `${name}.downsample.1`, conv(g, `${name}.downsample.0`, x, width, { kernel: 1, stride }))
    : x;
  let y = conv(g, `${name}.conv1`, norm(g, `${name}.bn1`, x), width, { kernel: 3, padding: 1 });
  y = prelu(g, `${name}.prelu`, norm(g, `${name}.bn2`, y));
  y = norm(g, `${name}.bn3`, conv(g, `${name}.conv2`, y, width, { kernel: 3, stride, padding: 1 }));
  return g.add2(y, shortcut);
}
