/**
 * A whole net as an ONNX model (opset 13, f32), so that what is trained here runs anywhere. ONNX has its channels
 * second: inputs and maps are [N, C, H, W] there, the weights go over as they are. The number of pictures N is
 * left free.
 */
import { WfrError } from '../../gpu/errors.js';
import type { Graph, Node } from '../../graph/graph.js';
import type { ParameterValues } from '../../graph/parameters.js';
import type { FlattenOrder } from '../../kernels/packing.js';
import { WeightsError } from '../errors.js';
import { metadataToStrings, type WeightsMetadata } from '../metadata.js';
import { ProtoWriter } from './protobuf.js';

const FLOAT = 1;
const INT64 = 7;
const OPSET = 13;

type Attribute = number | readonly number[] | { float: number };

/**
 * @param graph as built, not fused.
 * @param metadata written as the model's properties (`metadata_props`); with them the file reads back as weights.
 * @throws WeightsError when a weight is missing.
 */
export function exportOnnx(graph: Graph, values: ParameterValues, metadata?: WeightsMetadata): Uint8Array {
  const writer = new GraphWriter(graph, values);
  for (const node of graph.nodes) writer.add(node);
  return writer.finish(metadata ? metadataToStrings(metadata) : {});
}

class GraphWriter {
  readonly #nodes: ProtoWriter[] = [];
  readonly #initialisers: ProtoWriter[] = [];
  readonly #inputs: ProtoWriter[] = [];
  readonly #names = new Map<number, string>();
  readonly #written = new Set<string>();

  constructor(
    private readonly graph: Graph,
    private readonly values: ParameterValues,
  ) {
    for (const [name, id] of graph.outputs) this.#names.set(id, name);
  }

  add(node: Node): void {
    const [x, second, third] = node.inputs.map((id) => this.nameOf(id));
    const a = node.attributes;
    const y = this.nameOf(node.id);
    switch (node.op) {
      case 'input':
        this.#inputs.push(valueInfo(y, channelsFirst(node.shape)));
        break;
      case 'parameter':
        break; // Written by the op that uses it, in the shape that op wants.
      case 'conv2d': {
        const [, , kh, kw] = this.graph.node(node.inputs[1]).shape;
        const p = a.padding!;
        this.node(
          'Conv',
          [x, this.weight(node.inputs[1]), ...(a.hasBias ? [this.weight(node.inputs[2])] : [])],
          y,
          {
            kernel_shape: [kh, kw],
            strides: [a.stride!, a.stride!],
            pads: [p, p, p, p],
            dilations: [a.dilation!, a.dilation!],
            group: a.groups!,
          },
        );
        break;
      }
      case 'dense': {
        const flat = this.graph.node(node.inputs[1]).attributes.flatten;
        const input = flat ? this.flatten(x, flat.order, `${y}/flat`) : x;
        this.node(
          'Gemm',
          [input, this.weight(node.inputs[1]), ...(a.hasBias ? [this.weight(node.inputs[2])] : [])],
          y,
          { transB: 1 },
        );
        break;
      }
      case 'batchNorm': {
        const parameters = node.inputs.slice(1).map((id) => this.weight(id));
        this.node('BatchNormalization', [x, ...parameters], y, { epsilon: { float: a.eps! } });
        break;
      }
      case 'prelu':
        this.node('PRelu', [x, this.slope(node)], y, {});
        break;
      case 'relu':
        this.node('Relu', [x], y, {});
        break;
      case 'add':
        this.node('Add', [x, second], y, {});
        break;
      case 'mul':
        this.node('Mul', [x, second], y, {});
        break;
      case 'maxPool':
      case 'avgPool': {
        const [k, s, p] = [a.kernel!, a.stride!, a.padding!];
        const window = {
          kernel_shape: [k, k],
          strides: [s, s],
          pads: [p, p, p, p],
          ceil_mode: a.ceil ? 1 : 0,
        };
        if (node.op === 'maxPool') this.node('MaxPool', [x], y, window);
        else this.node('AveragePool', [x], y, { ...window, count_include_pad: 1 });
        break;
      }
      case 'globalAvgPool':
        this.node('ReduceMean', [x], y, { axes: [2, 3], keepdims: 0 });
        break;
      case 'softmax':
        this.node('Softmax', [x], y, { axis: 1 });
        break;
      case 'l2Normalize': {
        const floor = this.scalar(`${y}/eps`, a.eps!);
        this.node('ReduceL2', [x], `${y}/norm`, { axes: [1], keepdims: 1 });
        this.node('Max', [`${y}/norm`, floor], `${y}/length`, {});
        this.node('Div', [x, `${y}/length`], y, {});
        break;
      }
      case 'flatten':
        this.flatten(x, a.order!, y);
        break;
      case 'flip':
        this.node(
          'Slice',
          [
            x,
            this.integers(`${y}/from`, [-1]),
            this.integers(`${y}/to`, [-(2 ** 31)]),
            this.integers(`${y}/axis`, [3]),
            this.integers(`${y}/step`, [-1]),
          ],
          y,
          {},
        );
        break;
      default:
        throw new WfrError(`${this.graph.name}: ${node.op} (${third ?? ''}) has no ONNX counterpart here.`);
    }
  }

  finish(properties: Readonly<Record<string, string>>): Uint8Array {
    const graph = new ProtoWriter();
    for (const n of this.#nodes) graph.message(1, n);
    graph.text(2, this.graph.name);
    for (const i of this.#initialisers) graph.message(5, i);
    for (const i of this.#inputs) graph.message(11, i);
    for (const [name, id] of this.graph.outputs)
      graph.message(12, valueInfo(name, channelsFirst(this.graph.node(id).shape)));
    const opset = new ProtoWriter().text(1, '').int(2, OPSET);
    const model = new ProtoWriter().int(1, 8).text(2, 'wfr').message(7, graph).message(8, opset);
    for (const [key, value] of Object.entries(properties)) {
      if (key !== 'format') model.message(14, new ProtoWriter().text(1, key).text(2, value));
    }
    return model.finish();
  }

  private nameOf(id: number): string {
    const known = this.#names.get(id);
    if (known) return known;
    const { op, name } = this.graph.node(id);
    const made = name && (op === 'input' || op === 'parameter') ? name : `${op}_${id}`;
    this.#names.set(id, made);
    return made;
  }

  private node(
    op: string,
    inputs: readonly string[],
    output: string,
    attributes: Record<string, Attribute>,
  ): void {
    const w = new ProtoWriter();
    for (const i of inputs) w.text(1, i);
    w.text(2, output).text(4, op);
    for (const [name, value] of Object.entries(attributes)) w.message(5, attribute(name, value));
    this.#nodes.push(w);
  }

  /** Axes of the map [N, C, H, W] in the order that is flattened, then one row a picture. */
  private flatten(x: string, order: FlattenOrder, output: string): string {
    const axes = { chw: [0, 1, 2, 3], hwc: [0, 2, 3, 1], whc: [0, 3, 2, 1], cwh: [0, 1, 3, 2] }[order];
    let input = x;
    if (order !== 'chw') {
      this.node('Transpose', [x], `${output}/order`, { perm: axes });
      input = `${output}/order`;
    }
    this.node('Flatten', [input], output, { axis: 1 });
    return output;
  }

  private weight(id: number): string {
    const { name } = this.graph.node(id);
    return this.initialiser(name!, name!, (shape) => shape);
  }

  /** PRelu broadcasts its slopes from the right: [C, 1, 1] over maps, [C] over vectors. */
  private slope(node: Node): string {
    const { name } = this.graph.node(node.inputs[1]);
    if (node.shape.length === 2) return this.initialiser(name!, name!, (shape) => shape);
    return this.initialiser(`${name}/map`, name!, ([c]) => [c, 1, 1]);
  }

  private initialiser(
    as: string,
    source: string,
    reshape: (shape: readonly number[]) => readonly number[],
  ): string {
    if (this.#written.has(as)) return as;
    const value = this.values.get(source);
    if (!value)
      throw new WeightsError(`The weights have no ${source}: they belong to another net or variant.`);
    this.#written.add(as);
    const { data } = value;
    this.tensor(
      as,
      FLOAT,
      reshape(value.shape),
      new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    );
    return as;
  }

  private scalar(name: string, value: number): string {
    this.tensor(name, FLOAT, [], new Uint8Array(Float32Array.of(value).buffer));
    return name;
  }

  private integers(name: string, values: readonly number[]): string {
    this.tensor(name, INT64, [values.length], new Uint8Array(BigInt64Array.from(values, BigInt).buffer));
    return name;
  }

  private tensor(name: string, type: number, shape: readonly number[], raw: Uint8Array): void {
    const w = new ProtoWriter();
    for (const n of shape) w.int(1, n);
    this.#initialisers.push(w.int(2, type).text(8, name).bytes(9, raw));
  }
}

/** [N, H, W, C] → [N, C, H, W]; vectors stay. */
const channelsFirst = (shape: readonly number[]): readonly number[] =>
  shape.length === 4 ? [shape[0], shape[3], shape[1], shape[2]] : shape;

function attribute(name: string, value: Attribute): ProtoWriter {
  const w = new ProtoWriter().text(1, name);
  if (typeof value === 'number') return w.int(3, value).int(20, 2);
  if (Array.isArray(value)) {
    for (const v of value as readonly number[]) w.int(8, v);
    return w.int(20, 7);
  }
  return w.float(2, (value as { float: number }).float).int(20, 1);
}

/** A float tensor whose first axis, the pictures, is free. */
function valueInfo(name: string, shape: readonly number[]): ProtoWriter {
  const dims = new ProtoWriter();
  for (const [i, n] of shape.entries()) {
    dims.message(1, i === 0 ? new ProtoWriter().text(2, 'N') : new ProtoWriter().int(1, n));
  }
  const tensor = new ProtoWriter().int(1, FLOAT).message(2, dims);
  return new ProtoWriter().text(1, name).message(2, new ProtoWriter().message(1, tensor));
}
