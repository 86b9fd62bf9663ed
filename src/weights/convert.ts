/**
 * Recognises public layouts by their names and shapes and renames them to this project's:
 *
 * | layout                        | seen by                              | becomes        |
 * |-------------------------------|--------------------------------------|----------------|
 * | facenet-pytorch MTCNN, 3 files| conv1 … conv4_2 / dense4 / dense6_3  | mtcnn          |
 * | TropComplique MTCNN, 3 files  | features.conv1 … conv6_3             | mtcnn          |
 * | Xiaoccer MobileFaceNet        | dw_conv1, linear7, linear1           | mobilefacenet  |
 * | MXNet MobileFaceNet           | arg:conv_1_conv2d_weight, fc1        | mobilefacenet  |
 * | iResNet (ArcFace's PyTorch)   | layer1.0.bn1, fc, features           | iresnet        |
 * | this project's safetensors    | the header's metadata                | itself         |
 * | this project's ONNX export    | the model's properties               | itself         |
 */
import { type FlattenOrder, flatIndex } from '../kernels/packing.js';
import { WeightsError } from './errors.js';
import type { WeightsMetadata } from './metadata.js';
import { reshape, type StateDict, type WeightTensor } from './state_dict.js';

export interface Weights {
  state: StateDict;
  metadata: WeightsMetadata;
}

const MTCNN_PREPROCESSING = { mean: 127.5, scale: 1 / 128, order: 'rgb' as const };

/** @param states one state dict, or the three of an MTCNN in any order. */
export function convert(states: readonly StateDict[]): Weights {
  if (states.length === 3) return convertMtcnn(states);
  if (states.length !== 1)
    throw new WeightsError(`${states.length} files given: a net is one file, an MTCNN three.`);
  const [state] = states;
  if (state.has('linear7.conv.weight') && state.has('dw_conv1.conv.weight')) return convertXiaoccer(state);
  if (state.has('arg:conv_1_conv2d_weight') && state.has('arg:fc1_weight'))
    return convertMxnetMobileFaceNet(state);
  if (state.has('layer1.0.bn1.weight') && state.has('fc.weight')) return convertIResNet(state);
  if (state.has('pnet.conv1.weight')) return joinMtcnn([{ state, metadata: mtcnnMetadata('MTCNN') }]);
  const part = mtcnnPart(state);
  if (part) throw onePart([part]);
  if (state.has('stem.conv.weight') && state.has('embedding.weight')) {
    throw new WeightsError(
      'These are MobileFaceNet weights without the metadata that says which variant: write them with wfr or add net and config.',
    );
  }
  throw unknown(state);
}

function unknown(state: StateDict): WeightsError {
  const seen = [...state].slice(0, 8).map(([name, t]) => `${name} [${t.shape}]`);
  return new WeightsError(
    `These weights belong to no layout that is known here. They hold ${state.size} tensors: ${seen.join(', ')}${state.size > 8 ? ', …' : ''}. Known: MTCNN of facenet-pytorch or TropComplique (three files), MobileFaceNet of Xiaoccer or MXNet, iResNet state dicts, wfr safetensors.`,
  );
}

const mtcnnMetadata = (title: string): WeightsMetadata => ({
  net: 'mtcnn',
  title,
  preprocessing: MTCNN_PREPROCESSING,
});

const PARTS = { pnet: 10, rnet: 28, onet: 32 } as const;
const title = (part: string) => `${part[0].toUpperCase()}-Net`;

/** Which net of an MTCNN a public file holds, by the filters of its first layer. */
function mtcnnPart(state: StateDict): string | undefined {
  const filters = (state.get('conv1.weight') ?? state.get('features.conv1.weight'))?.shape[0];
  const branches = [...state.keys()].some((name) => /^(conv[456]|dense[56])_1\.weight$/.test(name));
  return branches ? Object.entries(PARTS).find(([, width]) => width === filters)?.[0] : undefined;
}

const onePart = (parts: readonly string[]) =>
  new WeightsError(
    `An MTCNN is three nets, and only ${parts.map(title).join(' and ')} ${parts.length > 1 ? 'are' : 'is'} here: give the files of P-Net, R-Net and O-Net together, e.g. pnet.pt rnet.pt onet.pt.`,
  );

/** An MTCNN in this project's names, in one file or (as ONNX) in three. @throws WeightsError when a net is missing. */
export function joinMtcnn(files: readonly Weights[]): Weights {
  const state: StateDict = new Map(files.flatMap((f) => [...f.state]));
  const parts = Object.keys(PARTS).filter((part) => state.has(`${part}.conv1.weight`));
  if (parts.length > 0 && parts.length < 3) throw onePart(parts);
  return { state, metadata: files[0].metadata };
}

function convertMtcnn(states: readonly StateDict[]): Weights {
  const out: StateDict = new Map();
  const facenet = states.some((s) => s.has('conv1.weight'));
  for (const [prefix, width] of Object.entries(PARTS)) {
    const source = states.find(
      (s) => (s.get('conv1.weight') ?? s.get('features.conv1.weight'))?.shape[0] === width,
    );
    if (!source)
      throw new WeightsError(
        `An MTCNN needs three files; none of those given holds the ${title(prefix)} (conv1 with ${width} filters).`,
      );
    for (const [name, tensor] of source) {
      const own = facenet ? name : mtcnnName(prefix, name);
      // facenet-pytorch flattens (W, H, C), TropComplique (C, W, H); here (C, H, W). Both maps are 3×3.
      const first = prefix === 'rnet' ? 'dense4.weight' : 'dense5.weight';
      const value =
        own === first
          ? reorderColumns(tensor, facenet ? 'whc' : 'cwh', [3, 3, prefix === 'rnet' ? 64 : 128])
          : tensor;
      out.set(`${prefix}.${own}`, value);
    }
  }
  return {
    state: out,
    metadata: mtcnnMetadata(
      `MTCNN as published by ${facenet ? 'facenet-pytorch' : 'TropComplique/mtcnn-pytorch'} (MIT)`,
    ),
  };
}

/** TropComplique's names → facenet-pytorch's. */
function mtcnnName(prefix: string, name: string): string {
  const plain = name.replace(/^features\./, '');
  if (prefix === 'rnet') return plain.replace(/^conv4\./, 'dense4.').replace(/^conv5_/, 'dense5_');
  if (prefix === 'onet') return plain.replace(/^conv5\./, 'dense5.').replace(/^conv6_/, 'dense6_');
  return plain;
}

function reorderColumns(
  { shape, data }: WeightTensor,
  from: FlattenOrder,
  map: readonly number[],
): WeightTensor {
  const [outputs, features] = shape;
  const [H, W, C] = map;
  if (features !== H * W * C)
    throw new WeightsError(
      `The first dense layer has ${features} columns, a ${H}×${W}×${C} map gives ${H * W * C}.`,
    );
  const out = new Float32Array(data.length);
  for (let c = 0; c < C; c++)
    for (let h = 0; h < H; h++)
      for (let w = 0; w < W; w++) {
        const [to, at] = [flatIndex('chw', map, h, w, c), flatIndex(from, map, h, w, c)];
        for (let o = 0; o < outputs; o++) out[o * features + to] = data[o * features + at];
      }
  return { shape, data: out };
}

/** Layers of the paper's net in this project's names, with their sources in another's. */
function renameMobileFaceNet(
  state: StateDict,
  layers: Record<string, string>,
  parts: (layer: string, source: string) => [string, string][],
): StateDict {
  const out: StateDict = new Map();
  for (const [layer, source] of Object.entries(layers)) {
    for (const [own, other] of parts(layer, source)) {
      const tensor = state.get(other);
      if (!tensor)
        throw new WeightsError(`MobileFaceNet: ${other} is missing, so these are not the paper's net.`);
      out.set(own, tensor);
    }
  }
  return out;
}

const BN = ['weight', 'bias', 'running_mean', 'running_var'];
const isLinear = (layer: string) => layer.endsWith('.project') || layer === 'gdc';

function convertXiaoccer(state: StateDict): Weights {
  const layers: Record<string, string> = { stem: 'conv1', dw: 'dw_conv1', head: 'conv2', gdc: 'linear7' };
  const blocks = blockCount(state, /^blocks\.(\d+)\./);
  for (let i = 0; i < blocks; i++)
    for (const [k, part] of ['expand', 'depthwise', 'project'].entries())
      layers[`blocks.${i}.${part}`] = `blocks.${i}.conv.${3 * k}`;
  const out = renameMobileFaceNet(state, layers, (layer, source) => {
    const sequential = /^(blocks\.\d+\.conv)\.(\d+)$/.exec(source);
    const sibling = (k: number) => (sequential ? `${sequential[1]}.${Number(sequential[2]) + k}` : '');
    const [conv, bn, prelu] = sequential
      ? [source, sibling(1), sibling(2)]
      : [`${source}.conv`, `${source}.bn`, `${source}.prelu`];
    const names: [string, string][] = [
      [`${layer}.conv.weight`, `${conv}.weight`],
      ...BN.map((p): [string, string] => [`${layer}.bn.${p}`, `${bn}.${p}`]),
    ];
    return isLinear(layer) ? names : [...names, [`${layer}.prelu.weight`, `${prelu}.weight`]];
  });
  const embedding = state.get('linear1.conv.weight')!;
  out.set('embedding.weight', reshape(embedding, embedding.shape.slice(0, 2)));
  for (const p of BN) out.set(`embedding_bn.${p}`, state.get(`linear1.bn.${p}`)!);
  const [, , kh, kw] = out.get('gdc.conv.weight')!.shape;
  return {
    state: out,
    metadata: {
      net: 'mobilefacenet',
      title: 'MobileFaceNet as published by Xiaoccer/MobileFaceNet_Pytorch',
      config: mobileFaceNetConfig(out, 1e-5, 1e-5),
      input: { height: kh * 16, width: kw * 16 },
      preprocessing: { mean: 127.5, scale: 1 / 128, order: 'rgb' },
      licence: 'no licence stated by its publisher',
    },
  };
}

function convertMxnetMobileFaceNet(state: StateDict): Weights {
  const layers: Record<string, string> = {
    stem: 'conv_1',
    dw: 'conv_2_dw',
    head: 'conv_6sep',
    gdc: 'conv_6dw7_7',
  };
  const sources: string[] = [];
  for (const [stage, next] of [
    [2, 3],
    [3, 4],
    [4, 5],
  ]) {
    sources.push(`dconv_${stage}${next}`);
    for (let k = 0; state.has(`arg:res_${next}_block${k}_conv_sep_conv2d_weight`); k++)
      sources.push(`res_${next}_block${k}`);
  }
  for (const [i, source] of sources.entries()) {
    layers[`blocks.${i}.expand`] = `${source}_conv_sep`;
    layers[`blocks.${i}.depthwise`] = `${source}_conv_dw`;
    layers[`blocks.${i}.project`] = `${source}_conv_proj`;
  }
  const bn = (own: string, other: string): [string, string][] => [
    [`${own}.weight`, `arg:${other}_gamma`],
    [`${own}.bias`, `arg:${other}_beta`],
    [`${own}.running_mean`, `aux:${other}_moving_mean`],
    [`${own}.running_var`, `aux:${other}_moving_var`],
  ];
  const out = renameMobileFaceNet(state, layers, (layer, source) => {
    const names: [string, string][] = [
      [`${layer}.conv.weight`, `arg:${source}_conv2d_weight`],
      ...bn(`${layer}.bn`, `${source}_batchnorm`),
    ];
    return isLinear(layer) ? names : [...names, [`${layer}.prelu.weight`, `arg:${source}_relu_gamma`]];
  });
  for (const [name, tensor] of out)
    if (name.endsWith('prelu.weight')) out.set(name, reshape(tensor, [tensor.data.length]));
  const embedding = state.get('arg:fc1_weight')!;
  out.set(
    'embedding.weight',
    reshape(embedding, [embedding.shape[0], embedding.data.length / embedding.shape[0]]),
  );
  const bias = state.get('arg:pre_fc1_bias');
  if (bias) out.set('embedding.bias', bias);
  for (const [own, other] of bn('embedding_bn', 'fc1')) out.set(own, state.get(other)!);
  // The last norm is declared with fix_gamma, which MXNet computes as a weight of one whatever is stored.
  out.set('embedding_bn.weight', {
    shape: [embedding.shape[0]],
    data: new Float32Array(embedding.shape[0]).fill(1),
  });
  const [, , kh, kw] = out.get('gdc.conv.weight')!.shape;
  return {
    state: out,
    metadata: {
      net: 'mobilefacenet',
      title: 'MobileFaceNet as published in MXNet by liguiyuan/mobilefacenet-ncnn',
      config: mobileFaceNetConfig(out, 1e-3, 2e-5),
      input: { height: kh * 16, width: kw * 16 },
      preprocessing: { mean: 127.5, scale: 1 / 128, order: 'rgb' },
      licence: 'no licence stated by its publisher',
    },
  };
}

function blockCount(state: StateDict, pattern: RegExp): number {
  let most = -1;
  for (const name of state.keys()) {
    const index = pattern.exec(name);
    if (index) most = Math.max(most, Number(index[1]));
  }
  return most + 1;
}

/** Reads the configuration off the shapes; strides follow from where the number of channels or the stage changes. */
function mobileFaceNetConfig(state: StateDict, eps: number, embeddingEps: number): Record<string, unknown> {
  const shape = (name: string) => state.get(name)!.shape;
  const count = blockCount(state, /^blocks\.(\d+)\./);
  const expands = Array.from({ length: count }, (_, i) => shape(`blocks.${i}.expand.conv.weight`)[0]);
  const outputs = Array.from({ length: count }, (_, i) => shape(`blocks.${i}.project.conv.weight`)[0]);
  // A stage begins at the first block and wherever the expansion grows: 128 …, 256 …, 512, 256 ….
  const blocks = expands.map((expand, i) => ({
    expand,
    outputs: outputs[i],
    stride: i === 0 || expand > expands[i - 1] ? 2 : 1,
  }));
  const stem = shape('stem.conv.weight')[0];
  return {
    stem,
    stemGroups: stem / shape('dw.conv.weight')[1],
    blocks,
    head: shape('head.conv.weight')[0],
    embedding: shape('embedding.weight')[0],
    embeddingBias: state.has('embedding.bias'),
    eps,
    embeddingEps,
  };
}

function convertIResNet(state: StateDict): Weights {
  const blocks = [1, 2, 3, 4].map((stage) => blockCount(state, new RegExp(`^layer${stage}\\.(\\d+)\\.`)));
  const depths: Record<string, number> = { '2,2,2,2': 18, '3,4,6,3': 34, '3,4,14,3': 50, '3,13,30,3': 100 };
  const depth = depths[String(blocks)];
  if (!depth) throw new WeightsError(`An iResNet of ${blocks} blocks is not one of 18, 34, 50 or 100.`);
  const out: StateDict = new Map([...state].filter(([name]) => !name.endsWith('num_batches_tracked')));
  return {
    state: out,
    metadata: {
      net: 'iresnet',
      title: `iResNet${depth}`,
      config: { depth, embedding: state.get('fc.weight')!.shape[0] },
      input: { height: 112, width: 112 },
      preprocessing: { mean: 127.5, scale: 1 / 127.5, order: 'rgb' },
    },
  };
}
