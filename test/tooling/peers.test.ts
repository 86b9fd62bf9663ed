import { describe, expect, it } from 'vitest';
import { NETS } from '../../bench/nets.js';
import { separate } from '../../bench/peers_graph.js';
import { tfliteModel, type Window, windowOf } from '../../bench/peers_tflite.js';
import { fuse } from '../../src/graph/fuse.js';
import { Graph } from '../../src/graph/graph.js';
import type { ParameterValue } from '../../src/graph/parameters.js';

/** How often a window fits and where the first begins, along one axis, by TensorFlow's definition of its paddings. */
function places(window: Window, axis: 0 | 1, input: number, reach: number, stride: number) {
  const [before, after] = window.explicit?.[axis] ?? [0, 0];
  const length = input + before + after;
  if (window.padding === 'VALID')
    return { count: Math.ceil((length - reach + 1) / stride), first: 0 - before };
  const count = Math.ceil(length / stride);
  const missing = Math.max(0, (count - 1) * stride + reach - length);
  return { count, first: 0 - Math.floor(missing / 2) - before };
}

describe('nets for other engines, and for TensorFlow Lite', () => {
  it('has each window where it is here, whatever the sizes of both axes', () => {
    const seen = new Set<string>();
    for (const kernel of [1, 2, 3, 5, 7])
      for (const stride of [1, 2, 3])
        for (const padding of [0, 1, 2, 3])
          for (const dilation of [1, 2])
            for (const ceil of [false, true])
              for (let h = 13; h < 19; h++)
                for (let w = 13; w < 19; w++) {
                  const reach = (kernel - 1) * dilation + 1;
                  const fit = (n: number) =>
                    (ceil ? Math.ceil : Math.floor)((n + 2 * padding - reach) / stride) + 1;
                  const window = windowOf([h, w], [fit(h), fit(w)], [kernel, kernel], {
                    stride,
                    padding,
                    dilation,
                  });
                  seen.add(window.explicit ? 'explicit' : window.padding);
                  const expected = [h, w].map((n) => ({ count: fit(n), first: 0 - padding }));
                  const found = [places(window, 0, h, reach, stride), places(window, 1, w, reach, stride)];
                  expect(found, JSON.stringify({ kernel, stride, padding, dilation, ceil, h, w })).toEqual(
                    expected,
                  );
                }
    expect([...seen].sort()).toEqual(['SAME', 'VALID', 'explicit']);
  });

  it.each(Object.keys(NETS))('%s gives other engines what it gives here, by ops that they have', (name) => {
    const [build, shape] = NETS[name];
    const source = build(shape);
    const { graph } = fuse(source, { get: () => undefined });
    const given = separate(graph);
    const count = (g: Graph, op: string) => g.nodes.filter((n) => n.op === op).length;
    for (const op of ['conv2d', 'dense', 'maxPool', 'softmax'])
      expect(count(given, op), op).toBe(count(source, op));
    for (const [output, id] of source.outputs)
      expect(given.node(given.outputs.get(output)!).shape).toEqual(source.node(id).shape);
  });

  it('pads in front of a stride of two, leaves out slopes of one, and orders weights for maps [H, W, C]', () => {
    const g = new Graph('net');
    let x = g.input('x', [1, 4, 4, 2]);
    x = g.conv2d(x, g.parameter('conv', [3, 2, 3, 3], 'conv'), { stride: 2, padding: 1 });
    x = g.conv2d(x, g.parameter('depthwise', [3, 1, 3, 3], 'depthwise'), { padding: 1, groups: 3 });
    x = g.prelu(x, g.parameter('slope', [3], 'vector'));
    const flatten = { order: 'chw' as const, map: [2, 2, 3] };
    g.output('y', g.dense(x, g.parameter('dense', [1, 12], 'dense', flatten)));
    const weights = new Map<string, ParameterValue>();
    for (const node of g.nodes)
      if (node.op === 'parameter')
        weights.set(node.name!, {
          shape: node.shape,
          data: Float32Array.from({ length: node.shape.reduce((a, b) => a * b, 1) }, (_, i) => i),
        });
    const { graph, derived } = fuse(g, weights);
    const model = tfliteModel(separate(graph), { get: (name) => derived.get(name) ?? weights.get(name) });

    expect(model.operators.map((o) => o.kind)).toEqual([
      'PAD',
      'CONV_2D',
      'DEPTHWISE_CONV_2D',
      'PRELU',
      'FULLY_CONNECTED',
    ]);
    const constant = (operator: number) => model.tensors[model.operators[operator].inputs[1]];
    expect([...constant(0).data!]).toEqual([0, 0, 1, 0, 1, 0, 0, 0]);
    expect(constant(1).shape).toEqual([3, 3, 3, 2]);
    expect([...constant(1).data!].slice(0, 6)).toEqual([0, 9, 1, 10, 2, 11]);
    expect(constant(2).shape).toEqual([1, 3, 3, 3]);
    expect([...constant(2).data!].slice(0, 6)).toEqual([0, 9, 18, 1, 10, 19]);
    expect(constant(3).shape).toEqual([1, 1, 3]);
    expect([...constant(4).data!]).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    expect(model.outputs).toEqual([model.operators[4].output]);
  });
});
