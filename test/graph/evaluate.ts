import type { Graph, Node } from '../../src/graph/graph.js';
import type { ParameterValues } from '../../src/graph/parameters.js';
import { flatIndex } from '../../src/kernels/packing.js';

type Values = Float64Array;

/**
 * Runs a graph in plain f64 loops straight from the definitions of its ops: no layout padding, no fusion, no
 * code shared with the kernels but the order of flattening.
 */
export function evaluate(
  graph: Graph,
  inputs: Record<string, ArrayLike<number>>,
  parameters: ParameterValues,
): Record<string, Values> {
  const values: Values[] = [];
  for (const node of graph.nodes) values.push(apply(graph, node, values, inputs, parameters));
  return Object.fromEntries([...graph.outputs].map(([name, id]) => [name, values[id]]));
}

function apply(
  graph: Graph,
  node: Node,
  values: Values[],
  inputs: Record<string, ArrayLike<number>>,
  parameters: ParameterValues,
): Values {
  const [x, second, third, fourth, fifth] = node.inputs.map((id) => values[id]);
  const xShape = node.inputs.length > 0 ? graph.node(node.inputs[0]).shape : [];
  const channels = node.shape[node.shape.length - 1];
  const a = node.attributes;
  switch (node.op) {
    case 'input':
      return Float64Array.from(inputs[node.name!]);
    case 'parameter':
      return Float64Array.from(parameters.get(node.name!)!.data);
    case 'conv2d':
      return conv(node, x, xShape, second, graph.node(node.inputs[1]).shape, a.hasBias ? third : undefined);
    case 'dense':
      return dense(graph, node, x, xShape, second, a.hasBias ? third : undefined);
    case 'batchNorm':
      return x.map((v, i) => {
        const c = i % channels;
        return ((v - fourth[c]) / Math.sqrt(fifth[c] + a.eps!)) * second[c] + third[c];
      });
    case 'prelu':
      return x.map((v, i) => (v > 0 ? v : v * second[i % channels]));
    case 'relu':
      return x.map((v) => Math.max(v, 0));
    case 'add':
      return x.map((v, i) => v + second[i]);
    case 'mul':
      return x.map((v, i) => v * second[i]);
    case 'maxPool':
      return window(node, x, xShape, (list) => Math.max(...list));
    case 'globalAvgPool':
      return Float64Array.from({ length: node.shape[0] * channels }, (_, i) => {
        const [, h, w] = xShape;
        const [n, c] = [Math.floor(i / channels), i % channels];
        let sum = 0;
        for (let p = 0; p < h * w; p++) sum += x[(n * h * w + p) * channels + c];
        return sum / (h * w);
      });
    case 'softmax':
      return rows(x, channels, (row) => {
        const e = row.map((v) => Math.exp(v - Math.max(...row)));
        return e.map((v) => v / e.reduce((s, u) => s + u, 0));
      });
    case 'l2Normalize':
      return rows(x, channels, (row) => row.map((v) => v / Math.max(Math.hypot(...row), a.eps!)));
    case 'flatten':
      return flatten(node, x, xShape);
    case 'flip':
      return x.map((_, i) => {
        const w = xShape[2];
        const pixel = Math.floor(i / channels);
        const mirrored = pixel - (pixel % w) + (w - 1 - (pixel % w));
        return x[mirrored * channels + (i % channels)];
      });
    default:
      throw new Error(`evaluate: no definition of ${node.op}`);
  }
}

function conv(
  node: Node,
  x: Values,
  [n, h, w, c]: readonly number[],
  f: Values,
  [o, i, kh, kw]: readonly number[],
  bias?: Values,
): Values {
  const [, oh, ow] = node.shape.slice(0, 3);
  const { stride = 1, padding = 0, dilation = 1, groups = 1 } = node.attributes;
  const y = new Float64Array(n * oh * ow * o);
  for (let b = 0; b < n; b++)
    for (let r = 0; r < oh; r++)
      for (let q = 0; q < ow; q++)
        for (let k = 0; k < o; k++) {
          let sum = bias?.[k] ?? 0;
          const first = Math.floor(k / (o / groups)) * i;
          for (let u = 0; u < kh; u++)
            for (let v = 0; v < kw; v++) {
              const [yy, xx] = [r * stride + u * dilation - padding, q * stride + v * dilation - padding];
              if (yy < 0 || xx < 0 || yy >= h || xx >= w) continue;
              for (let m = 0; m < i; m++)
                sum += x[((b * h + yy) * w + xx) * c + first + m] * f[((k * i + m) * kh + u) * kw + v];
            }
          y[((b * oh + r) * ow + q) * o + k] = sum;
        }
  return y;
}

function dense(
  graph: Graph,
  node: Node,
  x: Values,
  xShape: readonly number[],
  w: Values,
  bias?: Values,
): Values {
  const [n, o] = node.shape;
  const features = x.length / n;
  const flat = graph.node(node.inputs[1]).attributes.flatten;
  const order = flat ? flatten({ ...node, attributes: { order: flat.order } } as Node, x, xShape) : x;
  return Float64Array.from({ length: n * o }, (_, i) => {
    const [b, k] = [Math.floor(i / o), i % o];
    let sum = bias?.[k] ?? 0;
    for (let f = 0; f < features; f++) sum += order[b * features + f] * w[k * features + f];
    return sum;
  });
}

function flatten(node: Node, x: Values, [n, h, w, c]: readonly number[]): Values {
  const out = new Float64Array(x.length);
  for (let b = 0; b < n; b++)
    for (let r = 0; r < h; r++)
      for (let q = 0; q < w; q++)
        for (let k = 0; k < c; k++)
          out[b * h * w * c + flatIndex(node.attributes.order!, [h, w, c], r, q, k)] =
            x[((b * h + r) * w + q) * c + k];
  return out;
}

function window(
  node: Node,
  x: Values,
  [n, h, w, c]: readonly number[],
  reduce: (list: number[]) => number,
): Values {
  const [, oh, ow] = node.shape;
  const { kernel = 1, stride = 1, padding = 0 } = node.attributes;
  const y = new Float64Array(n * oh * ow * c);
  for (let i = 0; i < y.length; i++) {
    const [k, q, r, b] = [
      i % c,
      Math.floor(i / c) % ow,
      Math.floor(i / c / ow) % oh,
      Math.floor(i / c / ow / oh),
    ];
    const list: number[] = [];
    for (let u = 0; u < kernel; u++)
      for (let v = 0; v < kernel; v++) {
        const [yy, xx] = [r * stride + u - padding, q * stride + v - padding];
        if (yy >= 0 && xx >= 0 && yy < h && xx < w) list.push(x[((b * h + yy) * w + xx) * c + k]);
      }
    y[i] = reduce(list);
  }
  return y;
}

function rows(x: Values, width: number, f: (row: number[]) => number[]): Values {
  const out = new Float64Array(x.length);
  for (let r = 0; r < x.length / width; r++)
    out.set(f([...x.subarray(r * width, (r + 1) * width)]), r * width);
  return out;
}
