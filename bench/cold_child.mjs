// One cold start, for cold.ts: node cold_child.mjs BUILD WEIGHTS. Imports a build of the library, opens the adapter, reads
// the weights, compiles and computes one embedding; prints when each of these was done, in milliseconds since the process
// began, and how much processor time the process had taken by then.
import { pathToFileURL } from 'node:url';

/** @type {Record<string, { wall: number, processor: number }>} */
const marks = {};
const mark = (/** @type {string} */ stage) => {
  const { user, system } = process.cpuUsage();
  marks[stage] = { wall: performance.now(), processor: (user + system) / 1000 };
};
const [build, file, warm] = process.argv.slice(2);
mark('node');
const { openGpu, loadWeights, Embedder } = await import(pathToFileURL(build).href);
mark('import');
const gpu = await openGpu();
mark('adapter');
const weights = await loadWeights('recogniser', { path: file });
mark('weights');
const embedder = Embedder.create(gpu, weights, { flip: false });
const { height, width } = embedder.inputSize;
const data = Uint8Array.from({ length: height * width * 4 }, (_, i) => (i * 7) & 255);
const [first] = await embedder.embedAligned([{ width, height, data }]);
mark('embedding');
const times = [];
for (let i = 0; i < Number(warm); i++) {
  const before = process.cpuUsage();
  await embedder.embedAligned([{ width, height, data }]);
  const { user, system } = process.cpuUsage(before);
  times.push((user + system) / 1000);
}
times.sort((a, b) => a - b);
console.log(
  JSON.stringify({ marks, pipelines: gpu.pipelines.size, warm: times[times.length >> 1], first: [...first] }),
);
await embedder.destroy();
gpu.close();
