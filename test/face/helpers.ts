import type { Gpu } from '../../src/gpu/gpu.js';
import type { Picture } from '../../src/media/picture.js';
import { initialize } from '../../src/nets/initialize.js';
import { onet, pnet, rnet } from '../../src/nets/mtcnn.js';
import { recogniserOf } from '../../src/nets/registry.js';
import type { Weights } from '../../src/weights/convert.js';

/** Random weights of an MTCNN: what it finds means nothing, but it must be the same everywhere. */
export function randomMtcnn(seed = 1): Weights {
  const state = new Map([
    ...initialize(pnet([1, 12, 12, 3]), seed),
    ...initialize(rnet([1]), seed + 1),
    ...initialize(onet([1]), seed + 2),
  ]);
  return { metadata: { net: 'mtcnn' }, state };
}

/** A narrow MobileFaceNet with random weights. */
export function randomRecogniser(
  preprocessing: Weights['metadata']['preprocessing'] = { mean: 127.5, scale: 1 / 128, order: 'rgb' },
  width = 112,
): Weights {
  const metadata = { net: 'mobilefacenet', config: {}, input: { height: 112, width }, preprocessing };
  const net = recogniserOf('mobilefacenet', metadata)!;
  return { metadata, state: initialize(net.build([1, net.height, net.width, net.channels]), 5) };
}

/** Soft blobs in all colours: structure at every size, and no two places alike. */
export function blobs(width: number, height: number, seed = 1): Picture {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 4;
      for (let c = 0; c < 3; c++) {
        const k = seed + c * 0.7;
        const v =
          Math.sin(x * 0.11 * k + 0.004 * y * y) +
          Math.cos(y * 0.07 * k - 0.003 * x * y) +
          Math.sin(x * y * 0.0007);
        data[at + c] = Math.round(127.5 + 42 * v);
      }
      data[at + 3] = 255;
    }
  }
  return { width, height, data };
}

/** Random weights whose last biases say "face" of nearly everything: for tests that need faces, not good ones. */
export function eagerMtcnn(): Weights {
  const weights = randomMtcnn();
  for (const name of ['pnet.conv4_1.bias', 'rnet.dense5_1.bias', 'onet.dense6_1.bias'])
    weights.state.get(name)!.data.set([-2, 2]);
  // Points of a face, whatever the picture: the rest of O-Net moves them a little.
  weights.state.get('onet.dense6_3.bias')!.data.set([0.3, 0.7, 0.5, 0.35, 0.65, 0.4, 0.4, 0.6, 0.8, 0.8]);
  for (const name of [
    'pnet.conv4_2.weight',
    'rnet.dense5_2.weight',
    'onet.dense6_2.weight',
    'onet.dense6_3.weight',
  ]) {
    const { data } = weights.state.get(name)!;
    for (let i = 0; i < data.length; i++) data[i] *= 0.02;
  }
  return weights;
}

/** A few layers with random weights on faces of 32×32. */
export function smallRecogniser(): Weights {
  const preprocessing = { mean: 127.5, scale: 1 / 128, order: 'rgb' as const };
  const config = {
    stem: 8,
    stemGroups: 8,
    blocks: [{ expand: 16, outputs: 8, stride: 2 }],
    head: 16,
    embedding: 12,
  };
  const metadata = { net: 'mobilefacenet', config, input: { height: 32, width: 32 }, preprocessing };
  const net = recogniserOf('mobilefacenet', metadata)!;
  return { metadata, state: initialize(net.build([1, 32, 32, 3]), 5) };
}

export const memory = ({ stats }: Gpu) => ({ ...stats });
