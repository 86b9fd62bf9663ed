import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { initialize } from '../../src/nets/initialize.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { mobileFaceNet } from '../../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../../src/nets/mtcnn.js';
import { recogniserOf } from '../../src/nets/registry.js';
import { convert } from '../../src/weights/convert.js';
import { loadWeights } from '../../src/weights/load.node.js';
import { openWeights, saveWeights } from '../../src/weights/save.node.js';

const shared = path.join(import.meta.dirname, '..', '..', '..', 'shared', 'data', 'weights');
const trio = (folder: string, ending: string) =>
  ['pnet', 'rnet', 'onet'].map((n) => path.join(shared, folder, n + ending));

describe('layouts', () => {
  it('the two public MTCNN files hold the same numbers once converted', async (ctx) => {
    if (!existsSync(shared)) return ctx.skip('no ../shared/data/weights beside the checkout');
    const facenet = await openWeights(trio('facenet_pytorch_mtcnn', '.pt'));
    const tropcomplique = await openWeights(trio('tropcomplique_mtcnn', '.npy').reverse());
    expect([...tropcomplique.state.keys()].sort()).toEqual([...facenet.state.keys()].sort());
    for (const [name, { shape, data }] of facenet.state) {
      const other = tropcomplique.state.get(name)!;
      expect(other.shape, name).toEqual(shape);
      expect(Buffer.compare(Buffer.from(other.data.buffer), Buffer.from(data.buffer)), name).toBe(0);
    }
    for (const graph of [pnet([1, 12, 12, 3]), rnet([1]), onet([1])]) {
      for (const n of graph.nodes)
        if (n.op === 'parameter') expect(facenet.state.get(n.name!)?.shape, n.name).toEqual(n.shape);
    }
  });

  it.for([
    ['xiaoccer_mobilefacenet/068.ckpt', 112, 96],
    ['liguiyuan_mobilefacenet/model-0000.params', 112, 112],
  ] as const)('%s fits the net that its metadata describe', async ([file, height, width], ctx) => {
    if (!existsSync(shared)) return ctx.skip('no ../shared/data/weights beside the checkout');
    const { state, metadata } = await openWeights([path.join(shared, file)]);
    expect(metadata.input).toEqual({ height, width });
    const net = recogniserOf(metadata.net, metadata)!;
    const wanted = net.build([1, height, width, 3]).nodes.filter((n) => n.op === 'parameter');
    for (const n of wanted) expect(state.get(n.name!)?.shape, n.name).toEqual(n.shape);
    expect(state.size).toBe(wanted.length);
  });

  it('recognises an iResNet by its names and tells its depth', () => {
    const { metadata, state } = convert([initialize(iresnet([1, 112, 112, 3], { depth: 18 }), 1)]);
    expect(metadata.config).toEqual({ depth: 18, embedding: 512 });
    expect(state.get('layer1.0.downsample.0.weight')?.shape).toEqual([64, 64, 1, 1]);
  });

  it.each([
    ['P-Net', { 'conv1.weight': [10, 3, 3, 3], 'conv4_1.weight': [2, 32, 1, 1] }],
    ['R-Net', { 'conv1.weight': [28, 3, 3, 3], 'dense5_1.weight': [2, 128] }],
    ['O-Net', { 'features.conv1.weight': [32, 3, 3, 3], 'conv6_1.weight': [2, 256] }],
  ])('says that %s alone is one of three', (name, shapes) => {
    const state = new Map(
      Object.entries(shapes).map(([key, shape]) => [key, { shape, data: new Float32Array(1) }]),
    );
    expect(() => convert([state])).toThrow(`only ${name} is here: give the files of P-Net, R-Net and O-Net`);
  });

  it('says what an unknown file holds and what is known', () => {
    const state = new Map([['encoder.weight', { shape: [3, 4], data: new Float32Array(12) }]]);
    expect(() => convert([state])).toThrow(/encoder\.weight \[3,4\].*Known: MTCNN/s);
    expect(() => convert([state, state])).toThrow(/2 files given/);
  });
});

describe('looking weights up', () => {
  it('finds our own safetensors in a folder, prefers a path over everything, and hashes what it read', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'wfr-weights-'));
    const graph = mobileFaceNet([1, 112, 112, 3]);
    const metadata = {
      net: 'mobilefacenet',
      title: 'random',
      threshold: { similarity: 0.31, basis: 'none' },
    };
    await saveWeights(path.join(folder, 'net.safetensors'), { state: initialize(graph, 1), metadata }, 'f16');
    await writeFile(path.join(folder, 'broken.pt'), 'PK not a zip');
    const found = await loadWeights('recogniser', { path: folder });
    expect(found.metadata).toEqual(metadata);
    expect(found.files).toEqual([path.join(folder, 'net.safetensors')]);
    expect(found.hash).toMatch(/^[0-9a-f]{64}$/);
    await expect(loadWeights('detector', { path: folder })).rejects.toThrow(
      /No detector weights found; looked in .*wfr weights pull/s,
    );
    await expect(loadWeights('recogniser', { path: path.join(folder, 'broken.pt') })).rejects.toThrow(
      /broken\.pt: /,
    );
    await rm(folder, { recursive: true });
  });

  it('says so when the path does not exist', async () => {
    await expect(loadWeights('detector', { path: '/nowhere/at/all' })).rejects.toThrow(
      /--weights names \/nowhere\/at\/all/,
    );
  });
});
