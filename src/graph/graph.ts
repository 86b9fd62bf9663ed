import { WfrError } from '../gpu/errors.js';
import type { Margin } from '../kernels/margin_loss/margin.js';
import type { MtcnnLossOptions } from '../kernels/mtcnn_loss/tasks.js';
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

export interface GraphOptions {
  /** Build for training: batch norm by the batch's statistics, dropout active. Default false. */
  training?: boolean;
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

  /** Batch norm by the batch's statistics, dropout active. */
  readonly training: boolean;

  constructor(
    readonly name: string,
    options: GraphOptions = {},
  ) {
    this.training = options.training ?? false;
  }

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

  /** A value given at each run, [N, H, W, C] or [N, C]; `u32` for labels of any shape. */
  input(name: string, shape: readonly number[], dtype: 'f32' | 'u32' = 'f32'): Tensor {
    if (this.nodes.some((n) => n.op === 'input' && n.name === name))
      throw new WfrError(`${this.name}: two inputs named ${name}`);
    return this.add('input', [], dtype === 'u32' ? { shape, dtype } : { shape }, name);
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

  /** A value registered as an output, to build on: a net's embedding under a loss. */
  outputTensor(name: string): Tensor {
    const id = this.outputs.get(name);
    if (id === undefined) throw new WfrError(`${this.name} has no output ${name}`);
    return { id, shape: this.nodes[id].shape };
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

  /**
   * Batch norm, (x − mean)/√(var + eps)·weight + bias per channel, parameters [C]. By the running averages `mean` and
   * `variance`, or when the graph is built for training by the statistics of the batch, which the running averages then
   * take in at each step (momentum 0.1, unbiased variance).
   * @param options.frozen in training too by the running averages, which stay as they are.
   */
  batchNorm(
    x: Tensor,
    p: { weight: Tensor; bias: Tensor; mean: Tensor; variance: Tensor },
    eps = 1e-5,
    options: { frozen?: boolean } = {},
  ): Tensor {
    const parameters = [p.weight, p.bias, p.mean, p.variance];
    if (!this.training) return this.add('batchNorm', [x, ...parameters], { eps });
    const statistics = options.frozen
      ? this.add('batchNormRunning', parameters, { eps })
      : this.add('batchNormStatistics', [x, ...parameters], { eps });
    return this.add('batchNormApply', [x, statistics, p.weight, p.bias], {
      fixed: options.frozen ?? false,
      activation: 'none',
    });
  }

  /** Sets elements to zero with probability `rate` and scales the rest by 1/(1 − rate); nothing outside training. */
  dropout(x: Tensor, rate: number): Tensor {
    if (!(rate >= 0 && rate < 1)) throw new WfrError(`${this.name}: dropout rate ${rate} is not in [0, 1)`);
    if (!this.training || rate === 0) return x;
    return this.add('dropout', [x], { rate, salt: this.nodes.length });
  }

  /** A further output of the op that made `owner`, by index (the op's lowering says which are there). */
  part(owner: Tensor, index: number, shape: readonly number[]): Tensor {
    const known = this.nodes.find(
      (n) => n.op === 'part' && n.inputs[0] === owner.id && n.attributes.index === index,
    );
    return known ? { id: known.id, shape } : this.add('part', [owner], { index, shape });
  }

  /** x·value for a constant. */
  scale(x: Tensor, value: number): Tensor {
    return this.add('scale', [x], { value });
  }

  /**
   * Mean softmax cross-entropy [1] of logits [.., C] with u32 labels [..]. Labels of C and more are left out of loss, gradient
   * and mean.
   */
  softmaxCrossEntropy(logits: Tensor, labels: Tensor): Tensor {
    return this.add('softmaxCrossEntropy', [logits, labels]);
  }

  /** Mean smooth L1 [1] of x and a target of its shape: d²/(2·beta) below beta, |d| − beta/2 above. */
  smoothL1(x: Tensor, target: Tensor, beta = 1): Tensor {
    return this.add('smoothL1', [x, target], { beta });
  }

  /**
   * Distillation loss of unit embeddings [N, D] against a teacher's unit embeddings [N, T], a row of zeros where there is
   * none (kernels/distill_loss). `rows` [N, 3]: 1 − cosine, squared differences of similarities, whether taught.
   */
  distillLoss(
    unit: Tensor,
    teacher: Tensor,
    weights: { cosine: number; relation: number },
  ): { loss: Tensor; rows: Tensor } {
    const loss = this.add('distillLoss', [unit, teacher], {
      cosineWeight: weights.cosine,
      relationWeight: weights.relation,
    });
    return { loss, rows: this.part(loss, 1, [unit.shape[0], 3]) };
  }

  /**
   * Margin softmax of unit embeddings [N, D] over classes with u32 labels [N]; labels of C and more are left out
   * (kernels/margin_loss). `rows` [N, 4]: maximum and sum of the softmax, cross-entropy, 1 where the nearest class is right.
   * @param weights class centres, parameters [C, D] of layout dense, in chunks; or what gatherClasses gave.
   */
  marginLoss(
    unit: Tensor,
    labels: Tensor,
    weights: readonly Tensor[],
    margin: Margin,
  ): { loss: Tensor; rows: Tensor } {
    const loss = this.add('marginLoss', [unit, labels, ...weights], { margin });
    return { loss, rows: this.part(loss, 0, [unit.shape[0], 4]) };
  }

  /** The centres of the classes in `selection`, u32 [S] in rising order, out of parameters [C, D]: [Dp, S]. */
  gatherClasses(selection: Tensor, weights: readonly Tensor[]): Tensor {
    const shape = [Math.ceil(weights[0].shape[1] / 4) * 4, selection.shape[0]];
    return this.add('gatherClasses', [selection, ...weights], { shape });
  }

  /**
   * MTCNN's loss [1] over samples that each teach some of three tasks (kernels/mtcnn_loss): logits [N,2], boxes [N,4] and
   * points [N,10], tasks u32 [N]. Its further outputs: 0, what each row loses by task and whether it is classified
   * rightly [N,4]; 1, what each of these counts [N,4].
   */
  mtcnnLoss(
    x: { logits: Tensor; box: Tensor; points?: Tensor },
    target: { tasks: Tensor; box: Tensor; points?: Tensor },
    multiTask: MtcnnLossOptions,
  ): Tensor {
    const points = x.points && target.points ? [x.points, target.points] : [];
    return this.add('mtcnnLoss', [x.logits, x.box, target.tasks, target.box, ...points], { multiTask });
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
