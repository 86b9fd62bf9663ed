import { WfrError } from '../gpu/errors.js';
import { type FlattenedMap, type ParameterLayout, packedLength } from '../kernels/packing.js';
import type { Graph } from './graph.js';

/** Binding offsets of WebGPU are multiples of at most this. */
const ALIGNMENT = 256;

/** Weights that decay, weights that do not, averages of batch norm, and what no step changes. */
const GROUPS = ['decay', 'noDecay', 'statistic', 'fixed'] as const;
export type ParameterGroup = (typeof GROUPS)[number];

export interface FlatParameter {
  readonly name: string;
  /** PyTorch's shape. */
  readonly shape: readonly number[];
  readonly layout: ParameterLayout;
  readonly flatten?: FlattenedMap;
  readonly group: ParameterGroup;
  /** Bytes from the beginning of the flat buffer. */
  readonly offset: number;
  /** Bytes of the f32 GPU order, padding included. */
  readonly bytes: number;
}

export interface GroupingOptions {
  /** Weights that no step changes. None by default. */
  frozen?(name: string): boolean;
  /**
   * Weights that weight decay leaves alone. By default the one-dimensional ones: biases, the scales and shifts of norms and
   * PReLU's slopes.
   */
  noDecay?(name: string, shape: readonly number[]): boolean;
}

/**
 * Where every parameter of a graph lies in flat buffers of f32: each at a multiple of 256 bytes, in groups end to end,
 * so that an optimiser updates a group in one dispatch. Gradients and moments use the same offsets.
 */
export class FlatLayout {
  readonly parameters = new Map<string, FlatParameter>();
  /** Where each group ends, in bytes. */
  readonly ends: Record<ParameterGroup, number>;

  constructor(graph: Graph, options: GroupingOptions = {}) {
    const frozen = options.frozen ?? (() => false);
    const noDecay = options.noDecay ?? ((_, shape) => shape.length === 1);
    const averaged = new Set<number>();
    const running = new Set<number>();
    for (const n of graph.nodes) {
      if (n.op === 'batchNormStatistics') for (const id of n.inputs.slice(3)) averaged.add(id);
      if (n.op === 'batchNormRunning') for (const id of n.inputs.slice(2)) running.add(id);
      if (n.op === 'batchNorm')
        throw new WfrError(
          `${graph.name} was built for inference: build it with new Graph(name, { training: true }).`,
        );
    }
    const nodes = graph.nodes.filter((n) => n.op === 'parameter');
    const groupOf = (id: number, name: string, shape: readonly number[]): ParameterGroup => {
      if (averaged.has(id)) return 'statistic';
      if (running.has(id) || frozen(name)) return 'fixed';
      return noDecay(name, shape) ? 'noDecay' : 'decay';
    };
    let end = 0;
    const ends = {} as Record<ParameterGroup, number>;
    for (const group of GROUPS) {
      for (const { id, name, shape, attributes } of nodes) {
        if (groupOf(id, name!, shape) !== group) continue;
        const { layout, flatten } = attributes;
        const bytes = packedLength(shape, layout!, flatten) * 4;
        this.parameters.set(name!, {
          name: name!,
          shape,
          layout: layout!,
          flatten,
          group,
          offset: end,
          bytes,
        });
        end = Math.ceil((end + bytes) / ALIGNMENT) * ALIGNMENT;
      }
      ends[group] = end;
    }
    this.ends = ends;
  }

  /** @throws WfrError when the graph declares it otherwise than the one the layout was made for. */
  get(name: string, shape: readonly number[]): FlatParameter {
    const p = this.parameters.get(name);
    if (!p)
      throw new WfrError(
        `The trained parameters have no ${name} [${shape}]: they were made for another graph.`,
      );
    if (p.shape.length !== shape.length || p.shape.some((n, i) => n !== shape[i]))
      throw new WfrError(`Trained parameter ${name} has shape [${p.shape}], the graph needs [${shape}].`);
    return p;
  }

  /** Bytes of all parameters. */
  get bytes(): number {
    return this.ends.fixed;
  }
  /** Bytes of those that the optimiser changes. */
  get trainedBytes(): number {
    return this.ends.noDecay;
  }
  /** Bytes of those and of the statistics, which have a place among the gradients too. */
  get gradientBytes(): number {
    return this.ends.statistic;
  }
}
