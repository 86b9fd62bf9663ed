import type { Graph, Tensor } from '../graph/graph.js';

/** Batch norm with PyTorch's parameter names: weight, bias, running_mean, running_var under `name`. */
export function norm(g: Graph, name: string, x: Tensor, eps = 1e-5): Tensor {
  const channels = x.shape[x.shape.length - 1];
  const parameter = (part: string) => g.parameter(`${name}.${part}`, [channels], 'vector');
  return g.batchNorm(
    x,
    {
      weight: parameter('weight'),
      bias: parameter('bias'),
      mean: parameter('running_mean'),
      variance: parameter('running_var'),
    },
    eps,
  );
}

export interface ConvOptions {
  kernel: number;
  stride?: number;
  padding?: number;
  groups?: number;
}

/** Convolution without bias; depthwise and grouped by `groups`. */
export function conv(g: Graph, name: string, x: Tensor, outputs: number, options: ConvOptions): Tensor {
  const { kernel, stride = 1, padding = 0, groups = 1 } = options;
  const inputs = x.shape[3];
  const layout = groups === 1 ? 'conv' : groups === inputs && groups === outputs ? 'depthwise' : 'grouped';
  const weight = g.parameter(`${name}.weight`, [outputs, inputs / groups, kernel, kernel], layout);
  return g.conv2d(x, weight, { stride, padding, groups });
}

export function prelu(g: Graph, name: string, x: Tensor): Tensor {
  return g.prelu(x, g.parameter(`${name}.weight`, [x.shape[x.shape.length - 1]], 'vector'));
}
