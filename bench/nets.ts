import type { Graph } from '../src/graph/graph.js';
import type { ParameterValue } from '../src/graph/parameters.js';
import { initialize } from '../src/nets/initialize.js';
import { iresnet } from '../src/nets/iresnet.js';
import { MBF, mobileFaceNet, PAPER } from '../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../src/nets/mtcnn.js';

/** What is measured: the function that builds a net, and the input [N, H, W, C]. */
export const NETS: Record<string, [(shape: readonly number[]) => Graph, number[]]> = {
  mobilefacenet: [(s) => mobileFaceNet(s), [1, 112, 112, 3]],
  'mobilefacenet-16': [(s) => mobileFaceNet(s), [16, 112, 112, 3]],
  iresnet50: [(s) => iresnet(s, { depth: 50 }), [1, 112, 112, 3]],
  'iresnet50-16': [(s) => iresnet(s, { depth: 50 }), [16, 112, 112, 3]],
  'pnet-640x480': [pnet, [1, 480, 640, 3]],
  'rnet-64': [rnet, [64, 24, 24, 3]],
  'onet-32': [onet, [32, 48, 48, 3]],
};

/**
 * Repeatable weights. The last norm of each residual block is damped, as training leaves it: undamped, the signal
 * doubles with each of iResNet50's blocks and leaves the range of halves.
 */
export function weightsFor(graph: Graph): Map<string, ParameterValue> {
  const values = initialize(graph, 1);
  for (const [name, value] of values) if (/^layer.*\.bn3\.weight$/.test(name)) value.data.fill(0.25);
  return values;
}

export const TRAINED: Record<string, (shape: readonly number[]) => Graph> = {
  mobilefacenet: (s) => mobileFaceNet(s, PAPER, { training: true }),
  mbf: (s) => mobileFaceNet(s, MBF, { training: true }),
  iresnet18: (s) => iresnet(s, { depth: 18 }, { training: true }),
  iresnet50: (s) => iresnet(s, { depth: 50 }, { training: true }),
};
const CLASSES = 100;
/** The optimiser of a measured training step. */
export const TRAINABLE = { optimizer: { kind: 'sgd', momentum: 0.9, weightDecay: 5e-4 } } as const;
/** Small: at 0.01 the loss falls to a hundredth in one step, and engines that compute the same differ by their rounding. */
export const LEARNING_RATE = 0.001;

/**
 * A net for training on pictures of side × side under softmax cross-entropy over 100 classes: inputs `x` and `labels`,
 * output `loss`.
 * @param net one of `TRAINED`.
 */
export function trainingGraph(net: string, batch: number, side: number): Graph {
  const g = TRAINED[net]([batch, side, side, 3]);
  const e = g.outputTensor('embedding');
  const logits = g.dense(e, g.parameter('classes.weight', [CLASSES, e.shape[1]], 'dense'));
  g.output('loss', g.softmaxCrossEntropy(logits, g.input('labels', [batch], 'u32')));
  return g;
}

/** What such a net is trained on here: repeatable, and as dear as photos. */
export function trainingBatch(batch: number, side: number): { x: Float32Array; labels: Uint32Array } {
  return {
    x: Float32Array.from({ length: batch * side * side * 3 }, (_, i) => Math.sin(i * i)),
    labels: Uint32Array.from({ length: batch }, (_, i) => i % CLASSES),
  };
}
