import { describe, expect, it } from 'vitest';
import { Facebank } from '../../../src/face/facebank.js';
import { type AnalysedFrame, Analyser, type AnalyserOptions } from '../../../src/face/video/analyser.js';
import { Appearances } from '../../../src/face/video/appearances.js';
import { clock, timelineHtml } from '../../../src/face/video/timeline.js';
import type { Detection } from '../../../src/face/video/tracker.js';
import { frameBytes } from '../../../src/media/video/i420.js';
import type { TimedFrame } from '../../../src/media/video/types.js';
import { faceAt, lookOf, unit } from './helpers.js';

const RATE = 25;
const view = () => ({ matrix: 'bt601' as const, rotation: 0 as const });

/** Frames of one brightness; a change of it is a cut. */
async function* frames(shades: readonly number[]): AsyncGenerator<TimedFrame> {
  for (const [index, shade] of shades.entries()) {
    const data = new Uint8Array(frameBytes(64, 48)).fill(shade, 0, 64 * 48).fill(128, 64 * 48);
    yield { width: 64, height: 48, data, index, time: index / RATE, duration: 1 / RATE };
  }
}

type Scene = (index: number) => Detection[];

async function analyse(
  scene: Scene,
  shades: readonly number[],
  options: Partial<AnalyserOptions> = {},
  bank?: Facebank,
) {
  const looked: number[] = [];
  const analyser = new Analyser(
    async (frame) => {
      looked.push(frame.index);
      return scene(frame.index);
    },
    bank,
    view,
    { threshold: 0.4, ...options },
  );
  const out: AnalysedFrame[] = [];
  for await (const frame of analyser.analyse(frames(shades))) out.push(frame);
  return { out, looked };
}

const plain = (n: number, shade = 100) => new Array<number>(n).fill(shade);
const person = (who: number, x: number, variant: number): Detection => ({
  ...faceAt(x, 24, 20),
  embedding: lookOf(who, variant),
});
const names = (out: readonly AnalysedFrame[]) => out.map((f) => f.faces.map((x) => x.label?.name).join());

describe('frames with faces', () => {
  it('every frame comes out once, in order, with boxes between the frames that were looked at', async () => {
    const { out, looked } = await analyse((i) => [person(1, 10 + i, i)], plain(43));
    expect(out.map((f) => f.frame.index)).toEqual([...plain(43).keys()]);
    expect(looked).toEqual([0, 5, 10, 15, 20, 25, 30, 35, 40, 42]);
    out.forEach(({ faces }, i) => {
      expect(faces).toHaveLength(1);
      expect(faces[0].seen).toBe(looked.includes(i));
      expect(faces[0].label!.name).toBe('unknown 1');
      expect((faces[0].box.x1 + faces[0].box.x2) / 2).toBeGreaterThan(10 + i - 1.5);
      expect((faces[0].box.x1 + faces[0].box.x2) / 2).toBeLessThan(10 + i + 1.5);
    });
  });

  it('looks either side of a cut, and lets no box cross it', async () => {
    const { out, looked } = await analyse(
      (i) => [i < 12 ? person(1, 12, i) : person(2, 50, i)],
      [...plain(12), ...plain(14, 180)],
    );
    expect(looked).toContain(11);
    expect(looked).toContain(12);
    out.forEach(({ faces }, i) => {
      expect(faces).toHaveLength(1);
      expect((faces[0].box.x1 + faces[0].box.x2) / 2).toBeCloseTo(i < 12 ? 12 : 50, 0);
      expect(faces[0].label!.name).toBe(i < 12 ? 'unknown 1' : 'unknown 2');
    });
  });

  it('a face the detector misses once is shown all the same; a single false one is not', async () => {
    const { out } = await analyse(
      (i) => [...(i === 10 ? [] : [person(1, 20, i)]), ...(i === 20 ? [person(7, 50, 0)] : [])],
      plain(40),
    );
    expect(out.every((f) => f.faces.length === 1)).toBe(true);
  });

  it('what the detector was never sure of is not shown; a face it is often unsure of is', async () => {
    const { out } = await analyse(
      (i) => [
        { ...person(1, 20, i), score: i === 15 ? 0.95 : 0.75 },
        { ...person(7, 50, i), score: 0.8 },
      ],
      plain(40),
    );
    expect(out.every((f) => f.faces.length === 1 && f.faces[0].box.x2 < 35)).toBe(true);
  });

  it('with every 1, exactly what the detector gives, frame by frame', async () => {
    const scene: Scene = (i) => (i % 4 === 2 ? [] : [person(1, 20 + (i % 3), i)]);
    const { out, looked } = await analyse(scene, plain(12), { every: 1 });
    expect(looked).toHaveLength(12);
    out.forEach(({ faces }, i) => {
      expect(faces.map((f) => f.box)).toEqual(scene(i).map((f) => f.box));
    });
  });

  it('however rarely faces are looked for, they are followed', async () => {
    const { out, looked } = await analyse((i) => [person(1, 10 + i / 5, i)], plain(200), { every: 60 });
    expect(looked).toEqual([0, 60, 120, 180, 199]);
    expect(out.every((f) => f.faces.length === 1 && f.faces[0].label!.name === 'unknown 1')).toBe(true);
    expect(new Set(out.map((f) => f.faces[0].track)).size).toBe(1);
  });

  it('memory is bounded: with little of it frames go on as soon as their neighbours were looked at', async () => {
    let [taken, given, most] = [0, 0, 0];
    const analyser = new Analyser(async () => [], undefined, view, {
      threshold: 0.4,
      memory: 20_000,
      every: 1000,
    });
    async function* counted() {
      for await (const frame of frames(plain(100))) {
        taken++;
        yield frame;
      }
    }
    for await (const _ of analyser.analyse(counted())) {
      given++;
      most = Math.max(most, taken - given);
    }
    expect(given).toBe(100);
    expect(most).toBeLessThan(20);
  });

  it('an error of the finder comes out', async () => {
    const broken: Scene = (i) => {
      if (i === 10) throw new Error('lost');
      return [];
    };
    await expect(analyse(broken, plain(30))).rejects.toThrow('lost');
  });
});

describe('names', () => {
  const bank = new Facebank([
    { name: 'Ann', picture: 'a', embedding: lookOf(1, 900) },
    { name: 'Ben', picture: 'b', embedding: lookOf(2, 900) },
  ]);

  it('come from a track as a whole: poor frames change nothing', async () => {
    // Too unlike Ann to be named by themselves.
    const poor = (i: number) => {
      const [a, b] = [lookOf(1, i), lookOf(9, i)];
      return unit([...a].map((v, k) => 0.35 * v + b[k]));
    };
    const scene: Scene = (i) => [
      i % 3 === 2 ? { ...faceAt(20, 24, 18), embedding: poor(i) } : person(1, 20, i),
    ];
    const { out } = await analyse(scene, plain(60), { every: 1 }, bank);
    expect(new Set(names(out))).toEqual(new Set(['Ann']));
    const alone = await analyse(scene, plain(60), { every: 1, track: false }, bank);
    expect(new Set(names(alone.out)).size).toBeGreaterThan(1);
  });

  it('strangers are numbered apart, and the same one gets the same number again', async () => {
    // 3 and 4 together, a shot of 1 alone, then 4 alone, then both again in other places.
    const scene: Scene = (i) => {
      if (i < 25) return [person(3, 15, i), person(4, 50, i)];
      if (i < 50) return [person(1, 30, i)];
      if (i < 75) return [person(4, 20, i)];
      return [person(4, 15, i), person(3, 50, i)];
    };
    const shades = [...plain(25), ...plain(25, 180), ...plain(25), ...plain(25, 180)];
    const { out } = await analyse(scene, shades, {}, bank);
    const at = names(out);
    expect(new Set(at.slice(0, 25))).toEqual(new Set(['unknown 1,unknown 2']));
    expect(new Set(at.slice(25, 50))).toEqual(new Set(['Ann']));
    expect(new Set(at.slice(50, 75))).toEqual(new Set(['unknown 2']));
    expect(new Set(at.slice(75))).toEqual(new Set(['unknown 2,unknown 1']));
  });

  it('two faces in one frame are never one stranger, however alike', async () => {
    const { out } = await analyse((i) => [person(3, 15, i), person(3, 50, i + 500)], plain(30));
    expect(new Set(names(out))).toEqual(new Set(['unknown 1,unknown 2']));
  });

  it('without embeddings there are boxes and no names', async () => {
    const { out } = await analyse((i) => [faceAt(20 + i, 24, 20)], plain(20));
    expect(out.every((f) => f.faces.length === 1 && f.faces[0].label === undefined)).toBe(true);
    expect(new Set(out.map((f) => f.faces[0].track)).size).toBe(1);
  });
});

describe('who appears when', () => {
  it('is counted by what is shown, with short absences bridged', async () => {
    const scene: Scene = (i) => [
      ...(i < 30 || i >= 100 ? [person(1, 15, i)] : []),
      ...(i < 110 ? [person(2, 50, i)] : []),
    ];
    const { out } = await analyse(scene, plain(120), { portraits: true });
    const appearances = new Appearances();
    for (const frame of out) appearances.add(frame);
    const people = appearances.people();
    expect(people.map((p) => p.name)).toEqual(['unknown 2', 'unknown 1']);
    expect(people[1].appearances).toHaveLength(2);
    expect(people[1].appearances[0].start).toBe(0);
    expect(people[1].appearances[0].end).toBeGreaterThan(1);
    expect(people[1].appearances[0].end).toBeLessThan(1.25);
    expect(people[1].appearances[1].start).toBeCloseTo(4, 1);
    expect(people[0].appearances).toHaveLength(1);
    for (const p of people) for (const a of p.appearances) expect(a.portrait?.width).toBeGreaterThan(10);
  });

  it('is drawn as a page that stands alone, names escaped', () => {
    const appearance = { start: 1, end: 3 };
    const people = [{ name: '<Ann & "Co">', known: true, seconds: 2, frames: 50, appearances: [appearance] }];
    const html = timelineHtml(people, {
      title: 'a<b>.mp4',
      start: 1,
      seconds: 8,
      portrait: () => 'data:image/jpeg;base64,AA',
    });
    expect(html).toContain('&#60;Ann &#38; &#34;Co&#34;&#62;');
    expect(html).not.toContain('<Ann');
    expect(html).toContain('left:0.000%;width:25.000%');
    expect(html).not.toMatch(/https?:/);
    expect(clock(75.31)).toBe('1:15.3');
    expect(clock(3661)).toBe('1:01:01.0');
  });
});
