/**
 * The three nets of MTCNN (Zhang, Zhang, Li & Qiao 2016, "Joint face detection and alignment using multi-task
 * cascaded convolutional networks"). Input RGB, (v − 127.5)/128, no padding anywhere, pooling in ceil mode.
 *
 * State-dict names are `pnet.`, `rnet.` and `onet.` followed by conv1, prelu1, … The first dense layer's columns
 * are in (C, H, W) order.
 *
 * Outputs: `prob` softmax over (background, face); `box` regressions dx1, dy1, dx2, dy2 as fractions of the
 * box; `points` (O-Net) x1 … x5, y1 … y5 as fractions of the box.
 */
import { Graph, type Tensor } from '../graph/graph.js';
import type { MtcnnLossOptions } from '../kernels/mtcnn_loss/tasks.js';

/** Side of the window that one P-Net cell sees and the step between cells, in pixels. */
export const PNET_WINDOW = 12;
export const PNET_STRIDE = 2;
export const RNET_SIZE = 24;
export const ONET_SIZE = 48;

class Builder {
  constructor(
    readonly g: Graph,
    readonly prefix: string,
  ) {}

  conv(name: string, x: Tensor, outputs: number, kernel: number): Tensor {
    const weight = this.g.parameter(
      `${this.prefix}.${name}.weight`,
      [outputs, x.shape[3], kernel, kernel],
      'conv',
    );
    return this.g.conv2d(x, weight, {
      bias: this.g.parameter(`${this.prefix}.${name}.bias`, [outputs], 'vector'),
    });
  }

  dense(name: string, x: Tensor, outputs: number): Tensor {
    const features = x.shape.slice(1).reduce((a, b) => a * b, 1);
    const flatten = x.shape.length === 4 ? { order: 'chw' as const, map: x.shape.slice(1) } : undefined;
    const weight = this.g.parameter(`${this.prefix}.${name}.weight`, [outputs, features], 'dense', flatten);
    return this.g.dense(x, weight, this.g.parameter(`${this.prefix}.${name}.bias`, [outputs], 'vector'));
  }

  prelu(name: string, x: Tensor): Tensor {
    return this.g.prelu(
      x,
      this.g.parameter(`${this.prefix}.${name}.weight`, [x.shape[x.shape.length - 1]], 'vector'),
    );
  }

  pool(x: Tensor, kernel: number): Tensor {
    return this.g.maxPool(x, { kernel, stride: 2, ceil: true });
  }
}

/** Fully convolutional: [N, H, W, 3] with H, W ≥ 12 → prob [N, h, w, 2], box [N, h, w, 4], a cell every two pixels. */
export function pnet([n, h, w]: readonly number[]): Graph {
  const g = new Graph('pnet');
  const b = new Builder(g, 'pnet');
  let x = g.input('x', [n, h, w, 3]);
  x = b.pool(b.prelu('prelu1', b.conv('conv1', x, 10, 3)), 2);
  x = b.prelu('prelu2', b.conv('conv2', x, 16, 3));
  x = b.prelu('prelu3', b.conv('conv3', x, 32, 3));
  g.output('prob', g.softmax(b.conv('conv4_1', x, 2, 1)));
  g.output('box', b.conv('conv4_2', x, 4, 1));
  return g;
}

/** [N, 24, 24, 3] → prob [N, 2], box [N, 4]. */
export function rnet([n]: readonly number[]): Graph {
  const g = new Graph('rnet');
  const b = new Builder(g, 'rnet');
  let x = g.input('x', [n, RNET_SIZE, RNET_SIZE, 3]);
  x = b.pool(b.prelu('prelu1', b.conv('conv1', x, 28, 3)), 3);
  x = b.pool(b.prelu('prelu2', b.conv('conv2', x, 48, 3)), 3);
  x = b.prelu('prelu3', b.conv('conv3', x, 64, 2));
  x = b.prelu('prelu4', b.dense('dense4', x, 128));
  g.output('prob', g.softmax(b.dense('dense5_1', x, 2)));
  g.output('box', b.dense('dense5_2', x, 4));
  return g;
}

/** [N, 48, 48, 3] → prob [N, 2], box [N, 4], points [N, 10]. */
export function onet([n]: readonly number[]): Graph {
  const g = new Graph('onet');
  const b = new Builder(g, 'onet');
  let x = g.input('x', [n, ONET_SIZE, ONET_SIZE, 3]);
  x = b.pool(b.prelu('prelu1', b.conv('conv1', x, 32, 3)), 3);
  x = b.pool(b.prelu('prelu2', b.conv('conv2', x, 64, 3)), 3);
  x = b.pool(b.prelu('prelu3', b.conv('conv3', x, 64, 3)), 2);
  x = b.prelu('prelu4', b.conv('conv4', x, 128, 2));
  x = b.prelu('prelu5', b.dense('dense5', x, 256));
  g.output('prob', g.softmax(b.dense('dense6_1', x, 2)));
  g.output('box', b.dense('dense6_2', x, 4));
  g.output('points', b.dense('dense6_3', x, 10));
  return g;
}

export type MtcnnNet = 'pnet' | 'rnet' | 'onet';

/** Side of the square that each net looks at. */
export const NET_SIZE = { pnet: PNET_WINDOW, rnet: RNET_SIZE, onet: ONET_SIZE } as const;

/**
 * Weights of the losses: the paper's (section 3) for P- and R-Net. O-Net's box and points count more here (there 0.5 and 1):
 * their errors are squares of a few hundredths, beside which the class loss alone would shape the layers they share. A point's
 * coordinate off by more than 0.02 (a twentieth of the distance between the eyes) counts in proportion.
 */
export const NET_LOSS: Record<MtcnnNet, MtcnnLossOptions> = {
  pnet: { classWeight: 1, boxWeight: 0.5, pointsWeight: 0.5, pointsBeta: 1, keep: 0.7 },
  rnet: { classWeight: 1, boxWeight: 0.5, pointsWeight: 0.5, pointsBeta: 1, keep: 0.7 },
  onet: { classWeight: 1, boxWeight: 4, pointsWeight: 16, pointsBeta: 0.02, keep: 0.7 },
};

/**
 * A net with its loss, for samples of its size: inputs x [N, size, size, 3], `tasks` u32 [N] (kernels/mtcnn_loss/tasks.ts),
 * `boxTarget` [N, 4] and, for O-Net, `pointsTarget` [N, 10]; outputs `loss` [1] and `rows` [N, 4], what each sample
 * loses by task.
 */
export function mtcnnTraining(net: MtcnnNet, batch: number, options = NET_LOSS[net]): Graph {
  const size = NET_SIZE[net];
  const g = { pnet, rnet, onet }[net]([batch, size, size, 3]);
  const tensor = (id: number): Tensor => ({ id, shape: g.node(id).shape });
  const output = (name: string) => tensor(g.outputs.get(name)!);
  // The loss takes the logits, which lie before the softmax.
  const logits = tensor(g.node(output('prob')).inputs[0]);
  const box = output('box');
  const points = net === 'onet' ? output('points') : undefined;
  g.outputs.clear();
  const target = {
    tasks: g.input('tasks', [batch], 'u32'),
    box: g.input('boxTarget', [batch, 4]),
    points: points && g.input('pointsTarget', [batch, 10]),
  };
  const loss = g.mtcnnLoss({ logits, box, points }, target, options);
  g.output('loss', loss);
  g.output('rows', g.part(loss, 0, [batch, 4]));
  return g;
}
