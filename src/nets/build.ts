import type { Graph } from '../graph/graph.js';
import { onet, pnet, rnet } from './mtcnn.js';
import { type RecogniserDescription, recogniserOf } from './registry.js';

/**
 * The graphs of a weights file at their usual input size, one row: P-, R- and O-Net for an MTCNN (P-Net at its
 * window), the net itself for a recogniser. Empty where the name is unknown.
 */
export function graphsOf(net: string, description: RecogniserDescription): Graph[] {
  if (net === 'mtcnn') return [pnet([1, 12, 12, 3]), rnet([1]), onet([1])];
  const recogniser = recogniserOf(net, description);
  return recogniser ? [recogniser.build([1, recogniser.height, recogniser.width, recogniser.channels])] : [];
}
