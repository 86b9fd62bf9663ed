import { describe, expect, it } from 'vitest';
import { assign } from '../../../src/face/video/assign.js';
import { Gallery, qualityOf } from '../../../src/face/video/gallery.js';
import { Kalman1D } from '../../../src/face/video/kalman.js';
import { type Detection, type Track, Tracker } from '../../../src/face/video/tracker.js';
import { noise } from '../../check_op.js';
import { faceAt, lookOf, unit } from './helpers.js';

describe('assignment', () => {
  it('finds the least total, which taking the best pair first does not', () => {
    expect(
      assign([
        [1, 2],
        [1.5, 9],
      ]),
    ).toEqual([1, 0]);
  });

  it('never makes an impossible pair, and makes as many others as it can', () => {
    const no = Number.POSITIVE_INFINITY;
    expect(
      assign([
        [no, no],
        [1, no],
      ]),
    ).toEqual([-1, 0]);
    expect(
      assign([
        [1, no, no],
        [1.1, no, no],
        [0.5, no, 3],
      ]),
    ).toEqual([0, -1, 2]);
    expect(
      assign([
        [0.1, 5],
        [no, no],
        [0.2, no],
      ]),
    ).toEqual([1, -1, 0]);
    expect(assign([])).toEqual([]);
    expect(assign([[], []])).toEqual([-1, -1]);
  });

  it('agrees with trying every permutation', () => {
    const permutations = (n: number): number[][] =>
      n === 0
        ? [[]]
        : permutations(n - 1).flatMap((p) =>
            Array.from({ length: n }, (_, i) => [...p.slice(0, i), n - 1, ...p.slice(i)]),
          );
    for (let seed = 1; seed <= 20; seed++) {
      const values = noise(25, seed);
      const cost = Array.from({ length: 5 }, (_, i) =>
        [...values.subarray(5 * i, 5 * i + 5)].map((v) => v + 1),
      );
      const total = (p: readonly number[]) => p.reduce((sum, j, i) => sum + cost[i][j], 0);
      const best = Math.min(...permutations(5).map(total));
      expect(total(assign(cost))).toBeCloseTo(best, 6);
    }
  });
});

describe('the filter of a coordinate', () => {
  it('learns a constant speed from noisy sightings at uneven times', () => {
    const filter = new Kalman1D(0, 1, 20);
    const errors = noise(80, 3);
    let time = 0;
    errors.forEach((e, i) => {
      const dt = 0.03 + 0.02 * (i % 3);
      time += dt;
      filter.predict(dt, 1);
      filter.update(30 * time + e, 1);
    });
    expect(filter.velocity).toBeGreaterThan(28);
    expect(filter.velocity).toBeLessThan(32);
    expect(Math.abs(filter.position - 30 * time)).toBeLessThan(0.5);
    expect(filter.ahead(1) - filter.position).toBeCloseTo(filter.velocity, 10);
  });

  it('steadies what stands still', () => {
    const filter = new Kalman1D(100, 4, 50);
    const seen: number[] = [];
    for (const e of noise(200, 7)) {
      filter.predict(1 / 25, 20);
      filter.update(100 + 4 * e, 4);
      seen.push(filter.position);
    }
    const spread = Math.sqrt(seen.slice(100).reduce((s, x) => s + (x - 100) ** 2, 0) / 100);
    expect(spread).toBeLessThan(4 * 0.577 * 0.7);
  });
});

describe('a gallery', () => {
  it('keeps the best embeddings and weighs them', () => {
    const gallery = new Gallery(2);
    expect(gallery.mean).toBeUndefined();
    gallery.add(unit([0, 1]), 0.1);
    gallery.add(unit([1, 0]), 1);
    gallery.add(unit([1, 0.2]), 0.9);
    expect(gallery.count).toBe(2);
    // The poor one has gone.
    expect(gallery.mean![1]).toBeLessThan(0.15);
    expect(Math.hypot(...gallery.mean!)).toBeCloseTo(1, 5);
  });

  it('trusts large frontal faces more than small or turned ones', () => {
    const front = faceAt(100, 100, 80);
    const turned = {
      ...front,
      landmarks: front.landmarks.map(([x, y], i) => (i === 2 ? ([x + 20, y] as const) : ([x, y] as const))),
    };
    expect(qualityOf(front)).toBeGreaterThan(2 * qualityOf(turned));
    expect(qualityOf(front)).toBeGreaterThan(2 * qualityOf(faceAt(100, 100, 30)));
  });
});

/** Runs scenes of moving people through a tracker; `null` is a frame in which the person is not found. */
function follow(people: readonly (readonly (Detection | null)[])[], step = 0.2, options = {}) {
  const tracker = new Tracker({ threshold: 0.4, ...options });
  const tracks: (Track | null)[][] = people.map(() => []);
  for (let i = 0; i < people[0].length; i++) {
    const there = people.map((p) => p[i]);
    const faces = there.filter((f) => f !== null);
    const owners = tracker.update(i * step, faces);
    there.forEach((f, p) => {
      tracks[p].push(f ? owners[faces.indexOf(f)] : null);
    });
  }
  return { tracker, tracks };
}

const idsOf = (tracks: readonly (Track | null)[]) => [
  ...new Set(tracks.filter((t) => t !== null).map((t) => t.id)),
];
const walk = (n: number, at: (i: number) => [number, number], person: number, size = 60): Detection[] =>
  Array.from({ length: n }, (_, i) => ({ ...faceAt(...at(i), size), embedding: lookOf(person, i) }));

describe('tracks', () => {
  it('two people who cross keep their tracks', () => {
    const a = walk(21, (i) => [100 + 20 * i, 200], 1);
    const b = walk(21, (i) => [500 - 20 * i, 210], 2);
    const { tracks } = follow([a, b]);
    expect(idsOf(tracks[0])).toHaveLength(1);
    expect(idsOf(tracks[1])).toHaveLength(1);
    expect(idsOf(tracks[0])).not.toEqual(idsOf(tracks[1]));
  });

  it('two people who cross keep their tracks by motion alone, where there are no embeddings', () => {
    const bare = (list: Detection[]) => list.map(({ embedding, ...face }) => face);
    const a = bare(walk(41, (i) => [100 + 10 * i, 200], 1));
    const b = bare(walk(41, (i) => [500 - 10 * i, 240], 2));
    const { tracks } = follow([a, b], 0.1);
    expect(idsOf(tracks[0])).toHaveLength(1);
    expect(idsOf(tracks[1])).toHaveLength(1);
  });

  it('a head that turns back at once, and looks little like itself, is still the same', () => {
    // Away at 2.5 faces a second until the fifth look, where it is back by more than half its size and seen from aside.
    const head = walk(8, (i) => [i < 5 ? 200 + 30 * i : 285, 200], 1);
    const [own, other] = [lookOf(1, 5), lookOf(9, 5)];
    head[5].embedding = unit([...own].map((v, k) => 0.4 * v + other[k]));
    const { tracks } = follow([head]);
    expect(idsOf(tracks[0])).toHaveLength(1);
  });

  it('one who is hidden behind another for a second comes back as himself', () => {
    const a: (Detection | null)[] = walk(16, (i) => [100 + 20 * i, 200], 1);
    const b = walk(16, () => [250, 200], 2);
    a.fill(null, 5, 10);
    const { tracks } = follow([a, b]);
    expect(idsOf(tracks[0])).toHaveLength(1);
    expect(idsOf(tracks[1])).toHaveLength(1);
  });

  it('another face in the same place is another track', () => {
    const one: (Detection | null)[] = walk(10, () => [200, 200], 1);
    const two: (Detection | null)[] = walk(10, () => [200, 200], 2);
    one.fill(null, 5);
    two.fill(null, 0, 6);
    const { tracks } = follow([one, two]);
    expect(idsOf(tracks[0])).not.toEqual(idsOf(tracks[1]));
  });

  it('patience ends: who is away for long gets a new track', () => {
    const a: (Detection | null)[] = walk(20, () => [100, 100], 1);
    a.fill(null, 5, 14);
    expect(idsOf(follow([a]).tracks[0])).toHaveLength(2);
    expect(idsOf(follow([a], 0.2, { patience: 3 }).tracks[0])).toHaveLength(1);
  });

  it('a cut ends every track', () => {
    const tracker = new Tracker({ threshold: 0.4 });
    const [face] = walk(1, () => [100, 100], 1);
    const [before] = tracker.update(0, [face]);
    tracker.cut();
    expect(tracker.update(0.04, [face])[0]).not.toBe(before);
  });

  it('interpolates between sightings, bridges short gaps, and no long ones', () => {
    const options = { smooth: false };
    const a: (Detection | null)[] = walk(12, (i) => [100 + 10 * i, 100], 1);
    a[2] = null;
    a.fill(null, 5, 10);
    const { tracks } = follow([a], 0.2, options);
    const track = tracks[0][0]!;
    const centre = (time: number) => {
      const face = track.at(time);
      return face && (face.box.x1 + face.box.x2) / 2;
    };
    expect(centre(0.2)).toBeCloseTo(110, 6);
    expect(centre(0.3)).toBeCloseTo(115, 6);
    expect(track.at(0.2)!.seen).toBe(true);
    expect(track.at(0.3)!.seen).toBe(false);
    // Found at 0.2 and 0.6.
    expect(centre(0.4)).toBeCloseTo(120, 6);
    // Lost from 0.8 until 2.0.
    expect(centre(1.2)).toBeUndefined();
    expect(centre(-0.1)).toBeUndefined();
    expect(track.at(0.3)!.landmarks[0][0]).toBeCloseTo(faceAt(115, 100, 60).landmarks[0][0], 6);
    track.forgetBefore(0.3);
    expect(track.observations[0].time).toBeCloseTo(0.2, 9);
    expect(centre(0.3)).toBeCloseTo(115, 6);
  });

  it('smoothing steadies a trembling box and keeps up with a moving one', () => {
    const errors = noise(400, 11);
    const still = walk(100, (i) => [200 + 3 * errors[i], 200 + 3 * errors[100 + i]], 1);
    const spread = (list: number[]) => {
      const mean = list.reduce((s, v) => s + v, 0) / list.length;
      return Math.sqrt(list.reduce((s, v) => s + (v - mean) ** 2, 0) / list.length);
    };
    const lefts = (faces: Detection[]) => {
      const { tracks } = follow([faces], 1 / 25);
      return tracks[0][0]!.observations.slice(40).map((o) => o.box.x1);
    };
    expect(spread(lefts(still))).toBeLessThan(0.8 * spread(still.slice(40).map((f) => f.box.x1)));
    const moving = walk(100, (i) => [200 + 4 * i, 200], 1);
    const lag = lefts(moving).map((x, i) => Math.abs(x - moving[i + 40].box.x1));
    expect(Math.max(...lag)).toBeLessThan(2);
  });

  it('unsmoothed, shows exactly what was found', () => {
    const faces = walk(10, (i) => [100 + 7 * (i % 3), 100], 1);
    const { tracks } = follow([faces], 1 / 25, { smooth: false, bridge: 0 });
    faces.forEach((f, i) => {
      expect(tracks[0][0]!.at(i / 25)).toMatchObject({ box: f.box, landmarks: f.landmarks, seen: true });
    });
    expect(tracks[0][0]!.at(0.02)).toBeUndefined();
  });
});
