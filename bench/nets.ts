import type { Graph } from '../src/graph/graph.js';
import type { ParameterValue } from '../src/graph/parameters.js';
import { initialize } from '../src/nets/initialize.js';
import { iresnet } from '../src/nets/iresnet.js';
import { mobileFaceNet } from '../src/nets/mobilefacenet.js';
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
