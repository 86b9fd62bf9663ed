import type { Graph } from '../graph/graph.js';
import type { ParameterValue } from '../graph/parameters.js';

/** Uniform numbers in [0, 1) from a seed (mulberry32): the same on every machine. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Random weights for a graph: filters and dense weights normal with variance 2/fan-in (He et al. 2015), norms
 * at one and zero, PReLU slopes at 0.25, biases zero.
 *
 * Where a batch norm with the batch's statistics follows, the variance is 1/(3·fan-in), that of PyTorch's default. The norm
 * hides the size of such weights from everything but the optimiser: a step turns them the less, the larger they are, and at
 * He's size nets learnt at less than half the speed (docs/training-log.md).
 */
export function initialize(graph: Graph, seed: number): Map<string, ParameterValue> {
  const random = seededRandom(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const slopes = new Set(graph.nodes.filter((n) => n.op === 'prelu').map((n) => n.inputs[1]));
  const normed = weightsBeforeNorm(graph);
  const values = new Map<string, ParameterValue>();
  for (const node of graph.nodes) {
    if (node.op !== 'parameter') continue;
    const { shape, name, id } = node;
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (shape.length > 1) {
      const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
      const deviation = Math.sqrt((normed.has(id) ? 1 / 3 : 2) / fanIn);
      for (let i = 0; i < data.length; i++) data[i] = deviation * normal();
    } else if (slopes.has(id)) data.fill(0.25);
    else if (/(weight|running_var)$/.test(name!)) data.fill(1);
    values.set(name!, { shape, data });
  }
  return values;
}

/** Weights of convolutions and dense layers whose output goes into a batch norm with the batch's own statistics. */
function weightsBeforeNorm(graph: Graph): Set<number> {
  const nodes = new Map(graph.nodes.map((n) => [n.id, n]));
  const found = new Set<number>();
  for (const { op, inputs } of graph.nodes) {
    if (op !== 'batchNormStatistics') continue;
    const layer = nodes.get(inputs[0]);
    if (layer?.op === 'conv2d' || layer?.op === 'dense') found.add(layer.inputs[1]);
  }
  return found;
}
