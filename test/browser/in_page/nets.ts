import type { Gpu } from '../../../src/gpu/gpu.js';
import type { Graph } from '../../../src/graph/graph.js';
import { Model } from '../../../src/graph/model.js';
import { initialize, seededRandom } from '../../../src/nets/initialize.js';
import { iresnet } from '../../../src/nets/iresnet.js';
import { MBF, mobileFaceNet, PAPER } from '../../../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../../../src/nets/mtcnn.js';

const NETS: Record<string, { build: (shape: readonly number[]) => Graph; shape: readonly number[] }> = {
  'P-Net': { build: pnet, shape: [1, 37, 29, 3] },
  'R-Net': { build: rnet, shape: [3, 24, 24, 3] },
  'O-Net': { build: onet, shape: [2, 48, 48, 3] },
  MobileFaceNet: { build: (shape) => mobileFaceNet(shape, PAPER), shape: [1, 112, 96, 3] },
  'MobileFaceNet, grouped': { build: (shape) => mobileFaceNet(shape, MBF), shape: [1, 112, 112, 3] },
  iResNet50: { build: (shape) => iresnet(shape, { depth: 50 }), shape: [1, 112, 112, 3] },
};

export const NET_NAMES = Object.keys(NETS);

/** Outputs of a net with seeded weights on a seeded input: the same numbers wherever it runs. */
export async function runNet(gpu: Gpu, name: string): Promise<Record<string, number[]>> {
  const { build, shape } = NETS[name];
  const model = new Model(gpu, build, initialize(build(shape), 7));
  try {
    const random = seededRandom(11);
    const x = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 2 * random() - 1);
    const outputs = await (await model.at(shape)).run({ x });
    return Object.fromEntries(Object.entries(outputs).map(([k, values]) => [k, [...values]]));
  } finally {
    await model.destroy();
  }
}
