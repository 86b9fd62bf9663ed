import { describe, expect, it } from 'vitest';
import type { Points } from '../../src/face/align.js';
import { fromTurned, inTurned, type TurnedWindow, viewOf } from '../../src/face/view.js';

const square: TurnedWindow = { centre: [40, 70], side: 25, angle: 0.6 };

describe('turned squares', () => {
  it('lie where centre, side and angle say', () => {
    expect(fromTurned([0.5, 0.5], square)).toEqual([40, 70]);
    // The middle of the right side, clockwise below the centre's height.
    const [x, y] = fromTurned([1, 0.5], square);
    expect(x).toBeCloseTo(40 + 12.5 * Math.cos(0.6), 10);
    expect(y).toBeCloseTo(70 + 12.5 * Math.sin(0.6), 10);
  });

  it('take points there and back', () => {
    for (const point of [
      [3, 4],
      [41, 69.5],
      [-7, 120],
    ] as const) {
      const [x, y] = fromTurned(inTurned(point, square), square);
      expect(x).toBeCloseTo(point[0], 10);
      expect(y).toBeCloseTo(point[1], 10);
    }
  });
});

describe('the view of a face', () => {
  // As a face has them, though not the usual ones.
  const face: Points = [
    [0.33, 0.36],
    [0.66, 0.39],
    [0.47, 0.6],
    [0.35, 0.8],
    [0.68, 0.78],
  ];

  it('turns, grows and moves with the face, so that its points stay where they are in it', () => {
    const upright = viewOf(face);
    expect(upright.angle).toBeCloseTo(0, 1);
    expect(upright.side).toBeCloseTo(1, 1);
    for (const angle of [0.4, -2.9]) {
      const moved = face.map((p) => fromTurned(p, { ...square, angle }));
      const view = viewOf(moved);
      expect(view.side).toBeCloseTo(25 * upright.side, 6);
      for (const [k, p] of moved.entries()) {
        const [x, y] = inTurned(p, view);
        const [u, v] = inTurned(face[k], upright);
        expect(x).toBeCloseTo(u, 6);
        expect(y).toBeCloseTo(v, 6);
      }
    }
  });

  it('is the view of what it shows: a view of a view changes nothing', () => {
    const view = viewOf(face);
    const miss = (w: TurnedWindow) => {
      const seen = viewOf(face.map((p) => inTurned(p, w)));
      return (
        Math.hypot(seen.centre[0] - 0.5, seen.centre[1] - 0.5) +
        Math.abs(seen.angle) +
        Math.abs(seen.side - 1)
      );
    };
    expect(miss(view)).toBeLessThan(1e-9);
    expect(miss({ ...view, angle: view.angle + 0.01 })).toBeGreaterThan(1e-3);
  });

  it('of five points in one place is that place', () => {
    const view = viewOf(face.map(() => [7, 9] as const));
    expect(view.side).toBe(0);
    expect(fromTurned([0.2, 0.9], view)).toEqual([7, 9]);
  });
});
