import { describe, expect, it } from 'vitest';
import { calibrate, cellBox, toSquare } from '../../../src/face/boxes.js';
import { inTurned } from '../../../src/face/view.js';
import type { Picture } from '../../../src/media/picture.js';
import {
  type AnnotatedFace,
  parseAnnotations,
  parsePoints,
  parseWiderText,
  plausible,
} from '../../../src/train/mtcnn/annotations.js';
import { Batches } from '../../../src/train/mtcnn/batches.js';
import { cropTurned, cropWindow, mirrorPixels, turnedByQuarters } from '../../../src/train/mtcnn/crop.js';
import { Gatherer, QUOTA } from '../../../src/train/mtcnn/gather.js';
import {
  LANDMARK,
  lessonOf,
  mirrorFace,
  NEGATIVE,
  PART,
  POSITIVE,
  pointsOf,
  regressionOf,
} from '../../../src/train/mtcnn/samples.js';
import { AS_IT_IS, takeSample, type Variation, variationOf } from '../../../src/train/mtcnn/vary.js';
import { Random } from '../../../src/train/random.js';

const box = (x1: number, y1: number, x2: number, y2: number) => ({ x1, y1, x2, y2 });
const face = (b = box(0, 0, 100, 100), points?: AnnotatedFace['points']): AnnotatedFace => ({
  box: b,
  ignored: false,
  points,
});
const POINTS = [
  [30, 40],
  [70, 42],
  [52, 60],
  [35, 80],
  [68, 81],
] as const;

describe('lessons of a window', () => {
  it('follow the overlap with the nearest face', () => {
    // A window as large as the face, moved by d: overlap (100 − d)/(100 + d).
    const moved = (d: number) => lessonOf(box(d, 0, 100 + d, 100), [face()])?.tasks;
    expect(moved(20)).toBe(POSITIVE); // 0.667
    expect(moved(22)).toBe(PART); // 0.639
    expect(moved(42)).toBe(PART); // 0.408
    expect(moved(44)).toBeUndefined(); // 0.389
    expect(moved(53)).toBeUndefined(); // 0.307
    expect(moved(54)).toBe(NEGATIVE); // 0.299
    expect(lessonOf(box(0, 0, 10, 10), [])?.tasks).toBe(NEGATIVE);
  });

  it('include the points where at least half is seen', () => {
    const known = face(undefined, POINTS);
    expect(lessonOf(box(10, 0, 110, 100), [known])?.tasks).toBe(POSITIVE | LANDMARK);
    expect(lessonOf(box(30, 0, 130, 100), [known])?.tasks).toBe(PART | LANDMARK); // 0.538
    expect(lessonOf(box(36, 0, 136, 100), [known])?.tasks).toBe(PART); // 0.47
  });

  it('leave out faces that are marked as invalid', () => {
    expect(lessonOf(box(5, 0, 105, 100), [{ ...face(), ignored: true }])).toBeUndefined();
  });
});

describe('targets', () => {
  it('take R-Net and O-Net windows to the face by the arithmetic of the detector', () => {
    const window = box(10, 20, 58, 68);
    const truth = box(17, 22, 49, 70);
    // The cascade counts from one: the window's first pixel is 11.
    const got = calibrate(box(11, 21, 58, 68), regressionOf('onet', window, truth), 1);
    for (const [k, v] of Object.entries(box(18, 23, 49, 70))) expect(got[k as 'x1']).toBeCloseTo(v, 9);
  });

  it("take a P-Net cell's box to the face", () => {
    // Scale 1/4: cell (3, 5) sees the pixels 24 … 72 × 40 … 88 of the picture.
    const cell = cellBox(3, 5, 0.25);
    const window = box(24, 40, 72, 88);
    const truth = box(30, 41, 66, 90);
    const got = calibrate(cell, regressionOf('pnet', window, truth), 0);
    for (const [k, v] of Object.entries(box(31, 42, 66, 90))) expect(got[k as 'x1']).toBeCloseTo(v, 9);
    expect(toSquare(got).x2 - toSquare(got).x1).toBeCloseTo(48, 9);
  });

  it('give points as fractions of the window', () => {
    expect(pointsOf(box(-10, 0, 90, 100), POINTS)).toEqual([
      0.4, 0.8, 0.62, 0.45, 0.78, 0.4, 0.42, 0.6, 0.8, 0.81,
    ]);
  });

  it('swap left and right when mirrored', () => {
    const m = mirrorFace(face(box(10, 0, 90, 100), POINTS), box(0, 0, 100, 100));
    expect(m.box).toEqual(box(10, 0, 90, 100));
    expect(m.points).toEqual([
      [30, 42],
      [70, 40],
      [48, 60],
      [32, 81],
      [65, 80],
    ]);
    expect(plausible(m.points!, m.box)).toBe(true);
  });
});

/** Red grows to the right, green downwards; blue marks one pixel. */
function ramp(width: number, height: number): Picture {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) data.set([x * 2, y * 2, 0, 255], (y * width + x) * 4);
  return { width, height, data };
}

describe('crops', () => {
  it('average what they shrink', () => {
    const out = new Uint8Array(5 * 5 * 3);
    expect(cropWindow(ramp(60, 50), box(10, 20, 30, 40), 5, out)).toBe(true);
    // The first pixel is the mean of columns 10 … 13, rows 20 … 23.
    expect([out[0], out[1]]).toEqual([23, 43]);
    expect([out[3], out[1 + 3 * 5]]).toEqual([31, 51]);
  });

  it('stretch what is inside where the window overhangs, as the detector does', () => {
    const [overhanging, inside] = [new Uint8Array(48), new Uint8Array(48)];
    cropWindow(ramp(60, 50), box(-20, -4, 20, 36), 4, overhanging);
    cropWindow(ramp(60, 50), box(0, 0, 20, 36), 4, inside);
    expect(overhanging).toEqual(inside);
    expect(cropWindow(ramp(60, 50), box(-20, 0, -5, 15), 4, inside)).toBe(false);
  });

  it('turn: a point lands where inTurned says', () => {
    const p = ramp(60, 60);
    const [x, y] = [37, 24];
    p.data.set([0, 0, 255, 255], (y * 60 + x) * 4);
    for (const angle of [-0.6, 0, 0.4]) {
      const turned = { centre: [30, 28] as const, side: 40, angle };
      const out = new Uint8Array(40 * 40 * 3);
      cropTurned(p, turned, 40, out);
      const blue = Array.from({ length: 1600 }, (_, i) => out[3 * i + 2]);
      const total = blue.reduce((a, b) => a + b);
      const mean = (f: (i: number) => number) => blue.reduce((s, v, i) => s + v * (f(i) + 0.5), 0) / total;
      const [u, v] = inTurned([x + 0.5, y + 0.5], turned).map((t) => 40 * t);
      expect(mean((i) => i % 40)).toBeCloseTo(u, 0);
      expect(mean((i) => Math.floor(i / 40))).toBeCloseTo(v, 0);
    }
  });

  it('upright, the turned crop is the plain one', () => {
    const [a, b] = [new Uint8Array(432), new Uint8Array(432)];
    cropTurned(ramp(60, 60), { centre: [30, 30], side: 24, angle: 0 }, 12, a);
    cropWindow(ramp(60, 60), box(18, 18, 42, 42), 12, b);
    for (const [i, v] of a.entries()) expect(Math.abs(v - b[i])).toBeLessThanOrEqual(1);
  });

  it('mirror twice is nothing', () => {
    const pixels = Uint8Array.from({ length: 75 }, (_, i) => i);
    const twice = pixels.slice();
    mirrorPixels(twice, 5);
    expect([twice[0], twice[12]]).toEqual([12, 0]);
    mirrorPixels(twice, 5);
    expect(twice).toEqual(pixels);
  });
});

describe('gathering', () => {
  it('is the same for the same seed, and every sample is what its bits say', () => {
    const faces = [
      face(
        box(20, 10, 44, 42),
        POINTS.map(([x, y]) => [20 + x * 0.24, 10 + y * 0.32] as const),
      ),
    ];
    const gather = (seed: number) => {
      const got: { tasks: number; sum: number; box?: number[]; points?: number[] }[] = [];
      const sink = {
        add: (tasks: number, pixels: Uint8Array, b?: ArrayLike<number>, points?: ArrayLike<number>) =>
          void got.push({
            tasks,
            sum: pixels.reduce((a, c) => a + c, 0),
            box: b && Array.from(b),
            points: points && Array.from(points),
          }),
      };
      new Gatherer('onet', sink).picture(ramp(100, 80), faces, Random.of(seed));
      return got;
    };
    const got = gather(1);
    expect(gather(1)).toEqual(got);
    expect(gather(2)).not.toEqual(got);
    const of = (bits: number) => got.filter((s) => (s.tasks & bits) === bits);
    expect(of(POSITIVE)).toHaveLength(QUOTA.onet.positives + QUOTA.onet.views);
    expect(of(NEGATIVE).length).toBeGreaterThan(8);
    for (const s of of(POSITIVE)) expect(Math.max(...s.box!.map(Math.abs))).toBeLessThan(0.4);
    for (const s of of(LANDMARK)) {
      // Mirrored or not, the left eye is left of the right one and above the mouth.
      expect(s.points![0]).toBeLessThan(s.points![1]);
      expect(s.points![5]).toBeLessThan(s.points![8]);
    }
  });
});

describe('batches', () => {
  it('hold a fixed share of each kind and depend on seed and step alone', () => {
    const kinds = [NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE, PART];
    const count = 60;
    const samples = {
      size: 12,
      count,
      targets: Float32Array.from({ length: count * 14 }, (_, i) => Math.floor(i / 14)),
      tasks: Uint8Array.from({ length: count }, (_, i) => kinds[i % 6]),
      pixels: new Uint8Array(count * 432).fill(255),
    };
    const a = new Batches(samples, 'pnet', 20, 7);
    const first = a.at(0);
    const sixth = a.at(6);
    expect(new Batches(samples, 'pnet', 20, 7).at(6)).toEqual(sixth);
    expect(new Batches(samples, 'pnet', 20, 8).at(6)).not.toEqual(sixth);
    for (const b of [first, sixth]) {
      const counts = [NEGATIVE, POSITIVE, PART].map((k) => b.tasks.filter((t) => t === k).length);
      expect(counts).toEqual([12, 4, 4]);
      expect(b.x[0]).toBeCloseTo(127.5 / 128, 6);
      // The targets are those of the row's sample.
      for (const [i, t] of b.tasks.entries()) expect(kinds[b.boxTarget[4 * i] % 6]).toBe(t);
    }
    // Every part face comes once before any comes twice.
    const seen = Array.from({ length: 5 }, (_, s) => a.at(s)).flatMap((b) =>
      Array.from(b.tasks, (t, i) => (t === PART ? b.boxTarget[4 * i] : -1)).filter((v) => v >= 0),
    );
    expect(new Set(seen.slice(0, 10)).size).toBe(10);
  });
});

describe('variations', () => {
  const size = 8;
  const box = { x1: 1, y1: 2, x2: 6, y2: 7 };
  const points = [
    [2, 4],
    [5, 3.5],
    [3.5, 5],
    [2.5, 6],
    [4.5, 6.2],
  ] as const;
  const window = { x1: 0, y1: 0, x2: size, y2: size };
  const samples = {
    size,
    count: 2,
    tasks: Uint8Array.of(NEGATIVE, POSITIVE | LANDMARK),
    targets: new Float32Array(28),
    pixels: Uint8Array.from({ length: 2 * size * size * 3 }, (_, i) => (i * 89) % 251),
  };
  samples.targets.set([...regressionOf('onet', window, box), ...pointsOf(window, points)], 14);
  const taken = (variation: Variation) => {
    const batch = {
      x: new Float32Array(2 * size * size * 3),
      tasks: new Uint32Array(2),
      boxTarget: new Float32Array(8),
      pointsTarget: new Float32Array(20),
    };
    takeSample(samples, 1, variation, batch, 0);
    return batch;
  };
  const pixel = (y: number, x: number, k: number) => samples.pixels[((size + y) * size + x) * 3 + k];

  it('show the same face where it is then', () => {
    const move = [2, -1] as const;
    const moved = { x1: move[0], y1: move[1], x2: size + move[0], y2: size + move[1] };
    for (const isMirrored of [false, true]) {
      const face = { box, points, ignored: false };
      const seen = isMirrored ? mirrorFace(face, moved) : face;
      const batch = taken({ ...AS_IT_IS, isMirrored, move });
      const expected = [...regressionOf('onet', moved, seen.box), ...pointsOf(moved, seen.points!)];
      [...batch.boxTarget.slice(0, 4), ...batch.pointsTarget.slice(0, 10)].forEach((v, i) => {
        expect(v).toBeCloseTo(expected[i], 5);
      });
      expect(batch.tasks[0]).toBe(POSITIVE | LANDMARK);
      for (const [y, x] of [
        [3, 1],
        [0, 7],
      ]) {
        // Where the moved window reaches beyond the sample, its border goes on.
        const from = Math.min(size - 1, (isMirrored ? size - 1 - x : x) + move[0]);
        const value = (pixel(Math.max(0, y + move[1]), from, 2) - 127.5) / 128;
        expect(batch.x[(y * size + x) * 3 + 2]).toBeCloseTo(value, 5);
      }
    }
  });

  it('change the light within what pixels can be', () => {
    const { x } = taken({ ...AS_IT_IS, contrast: 1.1, brightness: 0.2 });
    const expected = Array.from(samples.pixels.subarray(size * size * 3), (v) =>
      Math.min(1, ((v - 127.5) / 128) * 1.1 + 0.2),
    );
    expect(Math.max(...expected)).toBe(1);
    for (const [i, v] of expected.entries()) expect(x[i]).toBeCloseTo(Math.max(-1, v), 5);
  });

  it('differ from one another and stay small', () => {
    const random = Random.of(1, 'test');
    const many = Array.from({ length: 200 }, () => variationOf(random, 48));
    expect(new Set(many.map((v) => v.move.join())).size).toBe(25);
    expect(Math.max(...many.flatMap((v) => v.move))).toBe(2);
    expect(many.filter((v) => v.isMirrored).length).toBeGreaterThan(70);
  });
});

it('a picture turned by quarters has its faces, to be ignored, where they are then', () => {
  const data = new Uint8Array(5 * 3 * 4);
  const [x, y] = [3, 1];
  data[(y * 5 + x) * 4] = 200;
  const faces = [{ box: { x1: x, y1: y, x2: x + 1, y2: y + 1 }, ignored: false }];
  for (const quarters of [0, 1, 2, 3] as const) {
    const turned = turnedByQuarters({ width: 5, height: 3, data }, faces, quarters);
    const { box, ignored } = turned.faces[0];
    expect(ignored).toBe(quarters > 0);
    expect(turned.picture.width).toBe(quarters % 2 ? 3 : 5);
    expect(turned.picture.data[(box.y1 * turned.picture.width + box.x1) * 4]).toBe(200);
  }
  // Clockwise: what was on the right is below.
  expect(turnedByQuarters({ width: 5, height: 3, data }, faces, 1).faces[0].box).toEqual({
    x1: 1,
    y1: 3,
    x2: 2,
    y2: 4,
  });
});

describe('annotations', () => {
  it('read JSON lines with pseudo-landmarks, and drop points that cannot be', () => {
    const good = [3, 4, 7, 4.2, 5, 6, 3.5, 8, 6.8, 8.1, 0.99];
    const swapped = [7, 4, 3, 4.2, 5, 6, 6.8, 8, 3.5, 8.1, 0.99];
    const upside = [3, 8, 7, 8.2, 5, 6, 3.5, 4, 6.8, 4.1, 0.99];
    const line = {
      file: 'train/a.jpg',
      wider: 'x/images/b/original.jpg',
      faces: [
        [0, 0, 10, 10, 0, 0, 0, 0],
        [0, 0, 10, 10, 0, 0, 0, 1],
        [0, 0, 10, 10],
        [0, 0, 10, 10],
        [50, 0, 10, 10],
      ],
      landmarks: [good, null, [...good.slice(0, 10), 0.5], swapped, good],
    };
    const [p] = parseAnnotations(`${JSON.stringify(line)}\n`);
    expect([p.file, p.name]).toEqual(['train/a.jpg', 'original.jpg']);
    expect(p.faces.map((f) => f.ignored)).toEqual([false, true, false, false, false]);
    // With eyes and mouth corners swapped the mouth would lie above the eyes.
    expect(p.faces.map((f) => Boolean(f.points))).toEqual([true, false, false, false, false]);
    expect(p.faces[0].points![3]).toEqual([3.5, 8]);
    expect(
      parseAnnotations(JSON.stringify({ ...line, landmarks: [upside] }))[0].faces[0].points,
    ).toBeUndefined();
    expect(() => parseAnnotations('{"file": 3}')).toThrow('line 1');
  });

  it("read WIDER's text", () => {
    const text =
      '0--Parade/a.jpg\n2\n449 330 122 149 0 0 0 0 0 0\n10 20 5 6 0 0 0 1 0 0\n0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n0--Parade/c.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n';
    const pictures = parseWiderText(text);
    expect(pictures.map((p) => [p.name, p.faces.length])).toEqual([
      ['a.jpg', 2],
      ['b.jpg', 0],
      ['c.jpg', 1],
    ]);
    expect(pictures[0].faces[0].box).toEqual(box(449, 330, 571, 479));
    expect(pictures[0].faces[1].ignored).toBe(true);
    expect(() => parseWiderText('a.jpg\n2\n1 2 3 4\n')).toThrow('line 4');
  });

  it('read lists of points as CSV and JSON', () => {
    const csv =
      'file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy\na/b.jpg,0,0,100,100,1.00,30,40,70,42,52,60,35,80,68,81\nc.jpg,,,,,,,,,,,,,,,\nd.jpg,0,0,100,100,0.70,30,40,70,42,52,60,35,80,68,81\n';
    const json = JSON.stringify([{ file: 'a/b.jpg', box: [0, 0, 100, 100], points: POINTS.flat() }]);
    expect(parsePoints(csv)).toEqual(parsePoints(json));
    expect(parsePoints(csv)).toHaveLength(1);
    expect(parsePoints(csv)[0].faces[0].points).toEqual(POINTS);
  });
});
