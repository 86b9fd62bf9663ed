/**
 * A net in TensorFlow Lite's operators, for LiteRT.js beside wfr (peers.ts): the graph after wfr's own folding, f32,
 * pictures [N, H, W, C] as here, all sizes fixed. peers/tflite.mjs writes the file.
 */
import type { Graph, Node } from '../src/graph/graph.js';
import type { ParameterValues } from '../src/graph/parameters.js';
import { flatIndex } from '../src/kernels/packing.js';
import type { Model, Operator, Scalar, Tensor } from './peers/tflite.mjs';

/** Padding of a window as TFLite knows it, and what has to be padded before it, [before, after] by height and width. */
export interface Window {
  padding: 'SAME' | 'VALID';
  explicit?: readonly [readonly [number, number], readonly [number, number]];
}

const NO_ACTIVATION = { byte: 0 };
const PADDING = { SAME: 0, VALID: 1 } as const;

/**
 * How TFLite gets at the same places of a window. SAME has ⌈input / stride⌉ of them and puts the smaller half of the padding
 * that they need before the first: at a stride of two that is often none, where PyTorch has `padding` always.
 * @param input height and width; `output` and `kernel` likewise.
 */
export function windowOf(
  input: readonly number[],
  output: readonly number[],
  kernel: readonly number[],
  { stride, padding, dilation = 1 }: { stride: number; padding: number; dilation?: number },
): Window {
  const reach = kernel.map((k) => (k - 1) * dilation + 1);
  const missing = output.map((n, i) => Math.max(0, (n - 1) * stride + reach[i] - input[i]));
  if (padding === 0 && missing.every((n) => n === 0)) return { padding: 'VALID' };
  const same = output.every(
    (n, i) => n === Math.ceil(input[i] / stride) && Math.floor(missing[i] / 2) === padding,
  );
  if (same) return { padding: 'SAME' };
  // No more behind than the last window reaches, for VALID would find room for another one.
  const [h, w] = missing.map((n) => [padding, Math.max(0, n - padding)] as const);
  return { padding: 'VALID', explicit: [h, w] };
}

/** @param graph after `fuse`. @throws Error when an op has no counterpart here, or a weight is missing. */
export function tfliteModel(graph: Graph, values: ParameterValues): Model {
  const lowering = new Lowering(graph, values);
  for (const node of graph.nodes) lowering.add(node);
  return lowering.finish();
}

class Lowering {
  readonly #tensors: Tensor[] = [];
  readonly #operators: Operator[] = [];
  readonly #inputs: number[] = [];
  /** Index of the tensor that holds a node's value. */
  readonly #values = new Map<number, number>();
  readonly #constants = new Map<string, number>();

  constructor(
    private readonly graph: Graph,
    private readonly values: ParameterValues,
  ) {}

  add(node: Node): void {
    const x = this.#values.get(node.inputs[0])!;
    if (node.op === 'parameter') return; // Written by the op that uses it, in the order that op wants.
    this.#values.set(node.id, this.lower(node, x));
  }

  finish(): Model {
    const outputs = [...this.graph.outputs.values()].map((id) => this.#values.get(id)!);
    const { name } = this.graph;
    return { name, tensors: this.#tensors, operators: this.#operators, inputs: this.#inputs, outputs };
  }

  private lower(node: Node, x: number): number {
    const { attributes: a, inputs, shape } = node;
    switch (node.op) {
      case 'input':
        this.#inputs.push(this.tensor({ name: node.name!, shape }));
        return this.#inputs[this.#inputs.length - 1];
      case 'conv2d':
        return this.convolution(node, x);
      case 'dense': {
        const operands = [x, this.dense(inputs[1]), this.bias(node)];
        const y = this.operator('FULLY_CONNECTED', operands, shape, [NO_ACTIVATION]);
        return this.epilogue(node, y);
      }
      case 'batchNorm': {
        const [gamma, beta, mean, variance] = inputs.slice(1).map((id) => this.parameter(id).data);
        const scale = gamma.map((g, k) => g / Math.sqrt(variance[k] + a.eps!));
        const shift = beta.map((b, k) => b - mean[k] * scale[k]);
        const own = [scale, shift].map((data) =>
          this.tensor({ name: `norm_${node.id}`, shape: [data.length], data }),
        );
        return this.affine(x, shape, own);
      }
      case 'prelu':
        return this.prelu(x, inputs[1], shape);
      case 'relu':
        return this.operator('RELU', [x], shape);
      case 'add':
      case 'mul': {
        const kind = node.op === 'add' ? 'ADD' : 'MUL';
        return this.operator(kind, [x, this.#values.get(inputs[1])!], shape, [NO_ACTIVATION]);
      }
      case 'maxPool': {
        const [k, stride] = [a.kernel!, a.stride!];
        const window = windowOf(this.map(x), shape.slice(1, 3), [k, k], { stride, padding: a.padding! });
        if (window.explicit)
          throw new Error(
            `${this.graph.name}: TFLite has no padding like that of a ${k}×${k} maximum at stride ${stride} over ${this.map(x).join('×')}.`,
          );
        return this.operator('MAX_POOL_2D', [x], shape, [
          { byte: PADDING[window.padding] },
          { int: stride },
          { int: stride },
          { int: k },
          { int: k },
          NO_ACTIVATION,
        ]);
      }
      case 'softmax':
        return this.operator('SOFTMAX', [x], shape, [{ float: 1 }]);
      default:
        throw new Error(`${this.graph.name}: ${node.op} has no TFLite counterpart here.`);
    }
  }

  private convolution(node: Node, x: number): number {
    const { attributes: a, inputs, shape } = node;
    const [stride, dilation] = [a.stride!, a.dilation!];
    const [o, i, kh, kw] = this.graph.node(inputs[1]).shape;
    if (a.hasInputAffine) {
      const vectors = inputs.slice(-2).map((id) => this.constant(id));
      x = this.affine(x, this.#tensors[x].shape, vectors);
    }
    const window = windowOf(this.map(x), shape.slice(1, 3), [kh, kw], {
      stride,
      padding: a.padding!,
      dilation,
    });
    if (window.explicit) x = this.pad(x, window.explicit);
    const depthwise = a.groups !== 1 && i === 1;
    // [O, I, H, W] → [O, H, W, I], or where each filter sees one channel → [1, H, W, O].
    const weight = this.constant(inputs[1], (data) => {
      const out = new Float32Array(data.length);
      for (let f = 0; f < o; f++)
        for (let c = 0; c < i; c++)
          for (let p = 0; p < kh * kw; p++)
            out[depthwise ? p * o + f : (f * kh * kw + p) * i + c] = data[(f * i + c) * kh * kw + p];
      return { data: out, shape: depthwise ? [1, kh, kw, o] : [o, kh, kw, i] };
    });
    const y = this.operator(
      depthwise ? 'DEPTHWISE_CONV_2D' : 'CONV_2D',
      [x, weight, this.bias(node)],
      shape,
      [
        { byte: PADDING[window.padding] },
        { int: stride },
        { int: stride },
        ...(depthwise ? [{ int: o / a.groups! }] : []),
        NO_ACTIVATION,
        { int: dilation },
        { int: dilation },
      ],
    );
    return this.epilogue(node, y);
  }

  /** What fusion put behind a layer: its activation, then an addition. */
  private epilogue({ attributes: a, inputs, shape }: Node, y: number): number {
    let next = a.hasBias ? 3 : 2;
    if (a.activation === 'prelu') y = this.prelu(y, inputs[next++], shape);
    else if (a.activation === 'relu') y = this.operator('RELU', [y], shape);
    if (!a.hasResidual) return y;
    return this.operator('ADD', [y, this.#values.get(inputs[next])!], shape, [NO_ACTIVATION]);
  }

  /** TFLite's layers have one always. */
  private bias({ id, attributes, inputs, shape }: Node): number {
    if (attributes.hasBias) return this.constant(inputs[2]);
    const count = shape[shape.length - 1];
    return this.tensor({ name: `bias_${id}`, shape: [count], data: new Float32Array(count) });
  }

  /** Slopes of one, which fusion gives layers without activation, are none here. */
  private prelu(x: number, slope: number, shape: readonly number[]): number {
    if (this.parameter(slope).data.every((v) => v === 1)) return x;
    const alpha = this.constant(slope, (data) => ({
      data,
      shape: [...shape.slice(1, -1).map(() => 1), data.length],
    }));
    return this.operator('PRELU', [x, alpha], shape);
  }

  private affine(x: number, shape: readonly number[], [scale, shift]: readonly number[]): number {
    const scaled = this.operator('MUL', [x, scale], shape, [NO_ACTIVATION]);
    return this.operator('ADD', [scaled, shift], shape, [NO_ACTIVATION]);
  }

  private pad(x: number, [rows, columns]: NonNullable<Window['explicit']>): number {
    const [n, h, w, c] = this.#tensors[x].shape;
    const data = Int32Array.of(0, 0, ...rows, ...columns, 0, 0);
    const amounts = this.tensor({ name: `pad_${this.#tensors.length}`, shape: [4, 2], data });
    const [height, width] = [h + rows[0] + rows[1], w + columns[0] + columns[1]];
    return this.operator('PAD', [x, amounts], [n, height, width, c]);
  }

  /** Columns go into the order in which a map lies here, so that flattening moves nothing. */
  private dense(id: number): number {
    const { shape, attributes } = this.graph.node(id);
    const { flatten } = attributes;
    if (!flatten || flatten.order === 'hwc') return this.constant(id);
    const [H, W, C] = flatten.map;
    return this.constant(id, (data) => {
      const out = new Float32Array(data.length);
      let at = 0;
      for (let o = 0; o < shape[0]; o++)
        for (let h = 0; h < H; h++)
          for (let w = 0; w < W; w++)
            for (let c = 0; c < C; c++)
              out[at++] = data[o * shape[1] + flatIndex(flatten.order, flatten.map, h, w, c)];
      return { data: out, shape };
    });
  }

  private constant(
    id: number,
    convert?: (data: Float32Array) => { data: Float32Array; shape: readonly number[] },
  ): number {
    const { name, data, shape } = this.parameter(id);
    let index = this.#constants.get(name);
    if (index === undefined) {
      index = this.tensor({ name, ...(convert?.(data) ?? { data, shape }) });
      this.#constants.set(name, index);
    }
    return index;
  }

  private parameter(id: number): { name: string; data: Float32Array; shape: readonly number[] } {
    const { name, shape } = this.graph.node(id);
    const value = this.values.get(name!);
    if (!value) throw new Error(`${this.graph.name}: the weights have no ${name}.`);
    return { name: name!, data: value.data, shape };
  }

  private map(x: number): readonly number[] {
    return this.#tensors[x].shape.slice(1, 3);
  }

  private tensor(tensor: Tensor): number {
    return this.#tensors.push(tensor) - 1;
  }

  private operator(
    kind: Operator['kind'],
    inputs: readonly number[],
    shape: readonly number[],
    options: readonly Scalar[] = [],
  ): number {
    const output = this.tensor({ name: `${kind}_${this.#operators.length}`, shape });
    this.#operators.push({ kind, inputs, output, options });
    return output;
  }
}
