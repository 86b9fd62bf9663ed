import { describe, expect, it } from 'vitest';
import { sumPartials } from '../../src/kernels/reduce/partials.js';
import { checkOp, noise, sharedGpu } from '../check_op.js';

describe('sums of partial results', () => {
  it.each([
    [1, 148],
    [63, 148],
    [64, 4],
    [500, 148],
    [65, 1200],
  ])('%i of %i numbers', async (splits, count) => {
    const data = noise(splits * count);
    const expected = new Float64Array(count);
    const magnitude = new Float64Array(count);
    for (const [i, v] of data.entries()) {
      expected[i % count] += v;
      magnitude[i % count] += Math.abs(v);
    }
    const gpu = await sharedGpu();
    const shared: boolean[] = [];
    await checkOp(gpu, (buffers) => {
      const partial = buffers.operand(data, [splits, count]);
      const y = buffers.output([1, count]);
      const call = sumPartials(partial.ref, splits, count / 4, y.ref);
      shared.push(call.body.includes('workgroupBarrier'));
      return {
        calls: [call],
        outputs: [{ name: 'y', operand: y, shape: [1, count], expected, magnitude, steps: splits }],
      };
    });
    // Both forms are among them.
    expect(shared).toEqual([splits >= 64]);
  });
});
