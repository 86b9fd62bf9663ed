// Trains the tiny net for 600 steps and prints what memory is held after each hundred: run by a test, in a process of its
// own so that nothing else allocates.
import { openGpu } from '../../src/gpu/gpu.js';
import { Trainer } from '../../src/train/trainer.js';
import { tinyRecipe, tinySource } from './tiny.js';

const gpu = await openGpu();
const recipe = tinyRecipe({ epochs: 1000 });
const trainer = await Trainer.create(gpu, recipe, tinySource(recipe));
const report: { device: unknown[]; heap: number[]; resident: number[] } = {
  device: [],
  heap: [],
  resident: [],
};
for (let until = 100; until <= 600; until += 100) {
  await trainer.run({ until });
  gc!();
  const { heapUsed, external, rss } = process.memoryUsage();
  report.device.push({ ...gpu.stats });
  report.heap.push(heapUsed + external);
  report.resident.push(rss);
}
trainer.destroy();
gpu.check();
gpu.close();
console.log(JSON.stringify(report));
process.exit(0);
