import { describe, expect, it } from 'vitest';
import {
  calibrate,
  cellBox,
  iou,
  nonMaximumSuppression,
  pixelsOf,
  pyramidScales,
  toSquare,
  votedBox,
} from '../../src/face/boxes.js';

const box = (x1: number, y1: number, x2: number, y2: number, score = 0) => ({ x1, y1, x2, y2, score });

describe('a vote of boxes', () => {
  it('is their mean by score, of those that overlap by 0.7 and more', () => {
    const own = box(0, 0, 100, 100, 0.9);
    expect(votedBox(own, [own])).toEqual({ x1: 0, y1: 0, x2: 100, y2: 100 });
    // 90 of 100, and 67 of 100 with its own.
    const voted = votedBox(own, [own, box(0, 10, 100, 100, 0.3), box(0, 33, 100, 100, 1)]);
    expect(voted.y1).toBeCloseTo((0.3 * 10) / 1.2, 12);
    expect([voted.x1, voted.x2, voted.y2]).toEqual([0, 100, 100]);
  });
});

describe('overlap and suppression', () => {
  it('measures intersection over union', () => {
    expect(iou(box(0, 0, 10, 10), box(5, 0, 15, 10))).toBeCloseTo(50 / 150, 12);
    expect(iou(box(0, 0, 10, 10), box(10, 0, 20, 10))).toBe(0);
    expect(iou(box(0, 0, 10, 10), box(0, 0, 10, 10))).toBe(1);
  });

  it('keeps the best of a cluster and everything that is apart', () => {
    const boxes = [box(0, 0, 10, 10, 0.8), box(1, 0, 11, 10, 0.9), box(40, 0, 50, 10, 0.7)];
    expect(nonMaximumSuppression(boxes, 0.5)).toEqual([1, 2]);
    // 90 of 110: an overlap above the threshold goes, one at it would stay.
    expect(nonMaximumSuppression(boxes, 90 / 110)).toEqual([1, 0, 2]);
  });

  it('lets a suppressed box suppress nothing', () => {
    const chain = [box(0, 0, 10, 10, 0.9), box(4, 0, 14, 10, 0.8), box(8, 0, 18, 10, 0.7)];
    expect(nonMaximumSuppression(chain, 0.4)).toEqual([0, 2]);
  });

  it('finds a small box inside a large one only over the smaller area', () => {
    const nested = [box(0, 0, 100, 100, 0.9), box(40, 40, 50, 50, 0.8)];
    expect(nonMaximumSuppression(nested, 0.7)).toEqual([0, 1]);
    expect(nonMaximumSuppression(nested, 0.7, 'min')).toEqual([0]);
  });

  it('keeps the order of equal scores', () => {
    const equal = [box(0, 0, 10, 10, 0.5), box(0, 0, 10, 10, 0.5), box(30, 0, 40, 10, 0.5)];
    expect(nonMaximumSuppression(equal, 0.5)).toEqual([0, 2]);
    expect(nonMaximumSuppression([], 0.5)).toEqual([]);
  });
});

describe('box arithmetic', () => {
  it('moves each side by its fraction of the size', () => {
    expect(calibrate(box(10, 20, 20, 40), [0.1, -0.1, 0.2, 0.5], 0)).toEqual({
      x1: 11,
      y1: 18,
      x2: 22,
      y2: 50,
    });
    expect(calibrate(box(10, 20, 19, 39), [0.1, -0.1, 0.2, 0.5], 1)).toEqual({
      x1: 11,
      y1: 18,
      x2: 21,
      y2: 49,
    });
  });

  it('squares around the centre', () => {
    expect(toSquare(box(0, 0, 10, 20))).toEqual({ x1: -5, y1: 0, x2: 15, y2: 20 });
  });

  it('takes a cell back to the picture', () => {
    expect(cellBox(0, 0, 1)).toEqual({ x1: 1, y1: 1, x2: 12, y2: 12 });
    expect(cellBox(3, 5, 0.6)).toEqual({ x1: 11, y1: 18, x2: 30, y2: 36 });
  });

  it('clips to the picture, counting from one', () => {
    expect(pixelsOf(box(1, 1, 12, 12), 100, 100)).toEqual([0, 0, 12, 12]);
    expect(pixelsOf(box(-7.5, 3.9, 12.9, 500), 100, 50)).toEqual([0, 2, 12, 50]);
    expect(pixelsOf(box(120, 3, 140, 20), 100, 50)).toBeUndefined();
    expect(pixelsOf(box(-20, -20, -3, -3), 100, 50)).toBeUndefined();
  });

  it('makes levels down to a short side of 12', () => {
    const scales = pyramidScales(400, 100, 20, 0.5);
    expect(scales).toEqual([0.6, 0.3, 0.15]);
    expect(pyramidScales(19, 400, 20, 0.709)).toEqual([]);
    expect(pyramidScales(20, 400, 20, 0.709)).toHaveLength(1);
  });
});
