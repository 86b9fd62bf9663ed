import { describe, expect, it } from 'vitest';
import { evaluateDetections } from '../../../src/train/mtcnn/evaluate.js';

const box = (x: number, y: number, size: number) => ({ x1: x, y1: y, x2: x + size, y2: y + size });
const face = (x: number, size = 50, ignored = false) => ({ box: box(x, 0, size), ignored });
const found = (x: number, score: number, size = 50, y = 0) => ({ ...box(x, y, size), score });

describe('evaluation of detections', () => {
  it('is 1 when everything is found and nothing else', () => {
    const f = evaluateDetections([
      { faces: [face(0), face(100)], detections: [found(2, 0.9), found(101, 0.8)] },
    ]);
    expect(f).toMatchObject({ faces: 2, averagePrecision: 1, recall: 1 });
  });

  it('counts a face once and a second box on it as false', () => {
    const f = evaluateDetections([{ faces: [face(0)], detections: [found(0, 0.9), found(3, 0.95)] }]);
    // The better scored box hits; the other comes later and costs nothing of the curve before it.
    expect(f.averagePrecision).toBe(1);
    expect(f.recall).toBe(1);
  });

  it('has the area that is worked out by hand', () => {
    // By score: hit, miss, hit, miss, hit; four faces. Precisions at the hits: 1, 2/3, 3/5.
    const detections = [
      found(0, 0.9),
      found(0, 0.8, 50, 300),
      found(100, 0.7),
      found(0, 0.6, 50, 400),
      found(200, 0.5),
    ];
    const f = evaluateDetections([{ faces: [face(0), face(100), face(200), face(300)], detections }]);
    expect(f.averagePrecision).toBeCloseTo((1 + 2 / 3 + 3 / 5) / 4, 12);
    expect(f.recall).toBe(0.75);
    // One picture: none false is the first hit, at most one false the second.
    expect(f.recallAt).toEqual([
      { falsePositives: 0.1, recall: 0.25 },
      { falsePositives: 0.3, recall: 0.25 },
      { falsePositives: 1, recall: 0.5 },
    ]);
  });

  it('lets precision only fall', () => {
    // miss, hit, hit: precisions at the hits 1/2 and 2/3, made falling 2/3 and 2/3.
    const detections = [found(0, 0.9, 50, 300), found(0, 0.8), found(100, 0.7)];
    const f = evaluateDetections([{ faces: [face(0), face(100)], detections }]);
    expect(f.averagePrecision).toBeCloseTo(2 / 3, 12);
  });

  it('needs an overlap of a half', () => {
    // Moved by a third of the side: overlap exactly 1/2.
    const at = (d: number) =>
      evaluateDetections([{ faces: [face(0, 60)], detections: [found(d, 1, 60)] }]).recall;
    expect(at(20)).toBe(1);
    expect(at(20.1)).toBe(0);
  });

  it('asks only for faces of the size, and forgives finds on others', () => {
    const picture = {
      faces: [face(0, 50), face(100, 20), face(200, 60, true)],
      detections: [
        found(0, 0.9),
        found(100, 0.95, 20),
        found(200, 0.97, 60),
        found(300, 0.99, 20),
        found(400, 0.5, 50),
      ],
    };
    const f = evaluateDetections([picture], 40);
    expect(f).toMatchObject({ faces: 1, averagePrecision: 1, recall: 1 });
    // The 20-pixel find on nothing is false where small faces count.
    expect(evaluateDetections([picture], 10).averagePrecision).toBeLessThan(1);
  });

  it('sorts over all pictures, and is 0 without finds', () => {
    const good = { faces: [face(0)], detections: [found(0, 0.5)] };
    const bad = { faces: [face(0)], detections: [found(300, 0.9)] };
    expect(evaluateDetections([good, bad]).averagePrecision).toBeCloseTo(0.25, 12);
    expect(evaluateDetections([{ faces: [face(0)], detections: [] }]).averagePrecision).toBe(0);
  });
});
