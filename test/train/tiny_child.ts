// Trains the tiny net in a folder: run by tests that kill it.
import { openGpu } from '../../src/gpu/gpu.js';
import { tinyRun } from './tiny.js';

const gpu = await openGpu();
await tinyRun(gpu, process.argv[2], 3, {
  onBegin: (step) => console.log(`from ${step}`),
  onStep: ({ step }) => console.log(`step ${step}`),
});
gpu.close();
console.log('done');
process.exit(0);
