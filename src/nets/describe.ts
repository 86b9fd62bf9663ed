import type { Graph } from '../graph/graph.js';

export interface NetDescription {
  /** Learnable values. Running statistics of batch norm are not counted. */
  parameters: number;
  /** Multiply-adds of convolutions and dense layers for one run at the graph's input shape. */
  macs: number;
}

/** Counts of a graph as built (not fused). */
export function describe(graph: Graph): NetDescription {
  let parameters = 0;
  let macs = 0;
  for (const node of graph.nodes) {
    if (node.op === 'parameter') {
      if (!/\.running_(mean|var)$/.test(node.name!)) parameters += size(node.shape);
    } else if (node.op === 'conv2d' || node.op === 'dense') {
      const [, ...filter] = graph.node(node.inputs[1]).shape;
      macs += size(node.shape) * size(filter);
    }
  }
  return { parameters, macs };
}

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
