// npx tsx bench/lfw.ts --data DIR --pairs FILE [--pictures 500] [--no-flip]
//
// How many pictures a second `wfr lfw` reads, detects, aligns and embeds, each stage apart, and whether memory stays
// flat: one JSON line every hundred pictures (resident memory, GPU bytes) and one at the end. Nothing is cached.
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { embedPictures, type Timing } from '../src/face/verification/embed.node.js';
import { testSetFromList } from '../src/face/verification/run.node.js';
import { DetectionStore, EmbeddingStore } from '../src/face/verification/store.node.js';
import { openGpu } from '../src/gpu/gpu.js';
import { loadWeights } from '../src/weights/load.node.js';
import { benchArgs, countOf, fail } from './options.js';
import { emit, round } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    data: { type: 'string' },
    pairs: { type: 'string' },
    pictures: { type: 'string', default: '500' },
    net: { type: 'string' },
    'no-flip': { type: 'boolean', default: false },
  },
});
if (!values.data || !values.pairs) fail('Give --data DIR and --pairs FILE, as for wfr lfw.');
const pictures = countOf('pictures', values.pictures);

const gpu = await openGpu();
const detector = Mtcnn.create(gpu, await loadWeights('detector'));
const flip = !values['no-flip'];
const weights = await loadWeights('recogniser', { net: values.net });
const embedder = Embedder.create(gpu, weights, { flip });
const set = await testSetFromList(values.pairs, values.data);
const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20);
const memory = () => ({
  residentMiB: megabytes(process.memoryUsage().rss),
  gpuMiB: megabytes(gpu.stats.bytes),
  gpuBuffers: gpu.stats.buffers,
});

let done = 0;
const run = async (count: number): Promise<Timing> => {
  const { timing } = await embedPictures(set.pictures.slice(0, count), {
    gpu: async () => gpu,
    detector: async () => detector,
    embedder: async () => embedder,
    detections: await DetectionStore.open(),
    embeddings: await EmbeddingStore.open(undefined, embedder.dimension),
    noFace: 'centre',
    minFace: 40,
    onPicture: () => {
      if (++done % 100 === 0) emit({ pictures: done, ...memory() });
    },
  });
  return timing;
};
// The first pictures compile what the driver compiles.
await run(10);
const start = performance.now();
const timing = await run(pictures);
const rate = (stage: 'decode' | 'detect' | 'embed') => round(timing.count[stage] / timing[stage], 2);
emit({
  bench: 'lfw',
  net: weights.metadata.title ?? weights.metadata.net,
  flip,
  pictures: timing.count.decode,
  decodePerSecond: rate('decode'),
  detectPerSecond: rate('detect'),
  alignAndEmbedPerSecond: rate('embed'),
  picturesPerSecond: round((1000 * timing.count.decode) / (performance.now() - start), 2),
  ...memory(),
});
gpu.close();
