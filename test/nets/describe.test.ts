import { expect, it, describe as suite } from 'vitest';
import { describe } from '../../src/nets/describe.js';
import { iresnet } from '../../src/nets/iresnet.js';
import { GRAY128, MBF, mobileFaceNet, PAPER } from '../../src/nets/mobilefacenet.js';
import { onet, pnet, rnet } from '../../src/nets/mtcnn.js';

suite('published sizes', () => {
  it('iResNet50 has 43,590,848 parameters and 6.31 GMAC at 112×112', () => {
    const { parameters, macs } = describe(iresnet([1, 112, 112, 3], { depth: 50 }));
    expect(parameters).toBe(43_590_848);
    expect(macs / 1e9).toBeCloseTo(6.31, 2);
  });

  it('mbf has 2.06 M parameters', () => {
    expect(describe(mobileFaceNet([1, 112, 112, 3], MBF)).parameters / 1e6).toBeCloseTo(2.06, 1);
  });

  it('the paper’s MobileFaceNet has about a million parameters', () => {
    const { parameters, macs } = describe(mobileFaceNet([1, 112, 112, 3], PAPER));
    expect({ parameters, macs }).toEqual({ parameters: 1_003_136, macs: 220_965_376 });
  });

  it('the P, R and O nets have 6,632, 100,178 and 389,040 parameters', () => {
    const counts = [pnet([1, 12, 12, 3]), rnet([1]), onet([1])].map((g) => describe(g).parameters);
    expect(counts).toEqual([6632, 100178, 389040]);
  });

  it('gives one P-Net cell for a 12×12 window and one every two pixels', () => {
    expect(pnet([1, 12, 12, 3]).node(pnet([1, 12, 12, 3]).outputs.get('prob')!).shape).toEqual([1, 1, 1, 2]);
    const g = pnet([1, 48, 65, 3]);
    expect(g.node(g.outputs.get('box')!).shape).toEqual([1, 19, 28, 4]);
  });

  it('the grayscale variant ends in a 2×2 map', () => {
    const g = mobileFaceNet([1, 128, 128, 1], GRAY128);
    expect(g.nodes.find((n) => n.name === 'embedding.weight')!.shape).toEqual([512, 2048]);
  });
});
