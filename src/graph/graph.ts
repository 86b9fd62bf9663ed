import { WfrError } from '../gpu/errors.js';
import type { FlattenedMap, FlattenOrder, ParameterLayout } from '../kernels/packing.js';
import { inferShape, type OpAttributes, type OpName } from './shapes.js';

export interface Node {
  readonly id: number;
  readonly op: OpName;
  readonly inputs: readonly number[];
  readonly attributes: Readonly<OpAttributes>;
  /** Logical shape: [N, H, W, C], [N, C], or a parameter's PyTorch shape. */
  readonly shape: readonly number[];
  readonly name?: string;
}

/** A value of a graph under construction. */
export interface Tensor {
  readonly id: number;
  readonly shape: readonly number[];
}

/**
 * A net, or any computation, as a list of nodes in topological order. Building it costs nothing on the GPU:
 * shapes are inferred and checked here, `compile` turns it into an executable.
 *
 * Maps are [N, H, W, C], vectors [N, C]. Parameters are declared in PyTorch's layouts and under their
 * state-dict names, so that weights load by name.
 */
export class Graph {
  readonly nodes: Node[] = [];
  readonly outputs = new Map<string, number>();

  constructor(readonly name: string) {}

  add(op: OpName, inputs: readonly Tensor[], attributes: OpAttributes = {}, name?: string): Tensor {
    const shapes = inputs.map((t) => t.shape);
    const shape = inferShape(op, shapes, attributes, `${this.name}${name ? `/${name}` : ''}`);
    const node: Node = {
      id: this.nodes.length,
      op,
      inputs: inputs.map((t) => t.id),
      attributes,
      shape,
      name,
    };
    this.nodes.push(node);
    return { id: node.id, shape };
  }

  node(t: Tensor | number): Node {
    return this.nodes[typeof t === 'number' ? t : t.id];
  }

  /** A value given at each run, [N, H, W, C] or [N, C]. */
  input(name: string, shape: readonly number[]): Tensor {
    if (this.nodes.some((n) => n.op === 'input' && n.name === name))
      throw new WfrError(`${this.name}: two inputs named ${name}`);
    return this.add('input', [], { shape }, name);
  }

  /** A weight by its state-dict name, shape as PyTorch has it. The same name gives the same tensor. */
  parameter(name: string, shape: readonly number[], layout: ParameterLayout, flatten?: FlattenedMap): Tensor {
    const known = this.nodes.find((n) => n.op === 'parameter' && n.name === name);
    if (known) return { id: known.id, shape: known.shape };
    return this.add('parameter', [], { shape, layout, flatten }, name);
  }

  output(name: string, t: Tensor): void {
    this.outputs.set(name, t.id);
  }

  /** Convolution. x [N,H,W,I], weight OIHW [O, I/groups, kh, kw], bias [O] → [N,H',W',O]. */
  conv2d(
    x: Tensor,
    weight: Tensor,
    options: { bias?: Tensor; stride?: number; padding?: number; dilation?: number; groups?: number } = {},
  ): Tensor {
    const { bias, stride = 1, padding = 0, dilation = 1, groups = 1 } = options;
    return this.add('conv2d', bias ? [x, weight, bias] : [x, weight], {
      stride,
      padding,
      dilation,
      groups,
      hasBias: Boolean(bias),
    });
  }

  /** Dense layer. x [N,I] or a map [N,H,W,C] flattened as the weight's layout says; weight [O,I] → [N,O]. */
  dense(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
    return this.add('dense', bias ? [x, weight, bias] : [x, weight], { hasBias: Boolean(bias) });
  }

  /** Batch norm by running statistics: (x − mean)/√(var + eps)·weight + bias, per channel. Parameters [C]. */
  batchNorm(
    x: Tensor,
    p: { weight: Tensor; bias: Tensor; mean: Tensor; variance: Tensor },
    eps = 1e-5,
  ): Tensor {
    return this.add('batchNorm', [x, p.weight, p.bias, p.mean, p.variance], { eps });
  }

  /** max(x,0) + slope·min(x,0), slope [C]. */
  prelu(x: Tensor, slope: Tensor): Tensor {
    return this.add('prelu', [x, slope]);
  }

  relu(x: Tensor): Tensor {
    return this.add('relu', [x]);
  }

  add2(a: Tensor, b: Tensor): Tensor {
    return this.add('add', [a, b]);
  }

  mul(a: Tensor, b: Tensor): Tensor {
    return this.add('mul', [a, b]);
  }

  /** Max pooling; with `ceil` windows may hang over the border, as PyTorch's ceil_mode. */
  maxPool(x: Tensor, options: { kernel: number; stride: number; padding?: number; ceil?: boolean }): Tensor {
    return this.add('maxPool', [x], { padding: 0, ceil: false, ...options });
  }

  /** Average pooling, padding counted as PyTorch's count_include_pad=true. */
  avgPool(x: Tensor, options: { kernel: number; stride: number; padding?: number; ceil?: boolean }): Tensor {
    return this.add('avgPool', [x], { padding: 0, ceil: false, ...options });
  }

  /** [N,H,W,C] → [N,C], the mean over the map. */
  globalAvgPool(x: Tensor): Tensor {
    return this.add('globalAvgPool', [x]);
  }

  /** Over channels. */
  softmax(x: Tensor): Tensor {
    return this.add('softmax', [x]);
  }

  /** x / max(‖x‖₂, eps) over channels. */
  l2Normalize(x: Tensor, eps = 1e-12): Tensor {
    return this.add('l2Normalize', [x], { eps });
  }

  /** [N,H,W,C] → [N, H·W·C] in the given order of axes. */
  flatten(x: Tensor, order: FlattenOrder = 'chw'): Tensor {
    return this.add('flatten', [x], { order });
  }

  /** Mirrors left and right. */
  flip(x: Tensor): Tensor {
    return this.add('flip', [x]);
  }
}
