import { describe, expect, it } from 'vitest';
import { Facebank } from '../../src/face/facebank.js';
import { cosine, DEFAULT_BAND, match } from '../../src/face/match.js';

const at = (degrees: number): Float32Array =>
  Float32Array.of(Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180));
const cos = (degrees: number) => Math.cos((degrees * Math.PI) / 180);

describe('match', () => {
  const people = new Map([
    ['Ann', [at(0), at(60)]],
    ['Bea', [at(100)]],
  ]);

  it('mean of similarities, best one, or their mean direction', () => {
    const by = (rule: 'mean' | 'max' | 'centroid') => match(at(30), people, { threshold: 0, rule });
    expect(by('mean').similarity).toBeCloseTo(cos(30), 6);
    expect(by('max').similarity).toBeCloseTo(cos(30), 6);
    expect(by('centroid').similarity).toBeCloseTo(1, 6);
    expect(match(at(0), people, { threshold: 0 }).similarity).toBeCloseTo((1 + cos(60)) / 2, 6);
    expect(match(at(0), people, { threshold: 0, rule: 'max' }).similarity).toBeCloseTo(1, 6);
  });

  it('gives a stranger no name, but says who is nearest', () => {
    const stranger = match(at(45), people, { threshold: 0.95 });
    expect(stranger).toMatchObject({ status: 'unknown', nearest: expect.any(String) });
    expect(stranger.name).toBeUndefined();
  });

  it('names the nearest person', () => {
    expect(match(at(95), people, { threshold: 0.4 })).toMatchObject({ name: 'Bea', status: 'known' });
    // Nearest single picture is Ann's, mean says Bea.
    expect(match(at(78), people, { threshold: 0.4, rule: 'max' }).name).toBe('Ann');
    expect(match(at(78), people, { threshold: 0.4, rule: 'mean' }).name).toBe('Bea');
  });

  it('known above the band, uncertain within, unknown below', () => {
    const one = new Map([['Ann', [at(0)]]]);
    const status = (similarity: number) =>
      match(at((Math.acos(similarity) * 180) / Math.PI), one, { threshold: 0.5 }).status;
    expect(status(0.5 + DEFAULT_BAND + 0.001)).toBe('known');
    expect(status(0.5 + DEFAULT_BAND - 0.001)).toBe('uncertain');
    expect(status(0.5 - DEFAULT_BAND + 0.001)).toBe('uncertain');
    expect(status(0.5 - DEFAULT_BAND - 0.001)).toBe('unknown');
    expect(match(at(0), one, { threshold: 0.5, band: 0 }).status).toBe('known');
  });

  it('an empty bank knows nobody', () => {
    expect(match(at(0), new Map(), { threshold: 0 })).toEqual({ status: 'unknown' });
    expect(match(at(0), new Map([['Ann', []]]), { threshold: 0 })).toEqual({ status: 'unknown' });
  });

  it('similarity of opposite and orthogonal directions', () => {
    expect(cosine(at(0), at(90))).toBeCloseTo(0, 6);
    expect(cosine(at(0), at(180))).toBeCloseTo(-1, 6);
  });
});

describe('Facebank', () => {
  const bank = () =>
    new Facebank([
      { name: 'Ann', picture: 'Ann/1.jpg', embedding: at(0) },
      { name: 'Ann', picture: 'Ann/2.jpg', embedding: at(5) },
      { name: 'Ann', picture: 'Ann/3.jpg', embedding: at(90) },
      { name: 'Łukasz', picture: 'Łukasz/1.jpg', embedding: at(92) },
    ]);

  it('adds, lists, removes', () => {
    const b = bank();
    expect(b.names).toEqual(['Ann', 'Łukasz']);
    expect(b.entries('Ann').length).toBe(3);
    expect(b.entries().length).toBe(4);
    expect(b.match(at(0), { threshold: 0.5 }).nearest).toBe('Ann');
    expect(b.remove('Ann')).toBe(true);
    expect(b.match(at(0), { threshold: 0.5 }).nearest).not.toBe('Ann');
    expect(b.remove('Ann')).toBe(false);
    expect(b.match(at(91), { threshold: 0.5 })).toMatchObject({ name: 'Łukasz', status: 'known' });
  });

  it('finds pictures of two people who look alike, most alike first', () => {
    const found = bank().lookalikes(0.05);
    expect(found.map(({ a, b }) => [a.picture, b.picture])).toEqual([
      ['Ann/3.jpg', 'Łukasz/1.jpg'],
      ['Ann/2.jpg', 'Łukasz/1.jpg'],
    ]);
    expect(found[0].similarity).toBeCloseTo(cos(2), 5);
    expect(bank().lookalikes(0.5).length).toBe(1);
  });

  it('finds the picture that is unlike its person’s others', () => {
    expect(
      bank()
        .outliers(0.5)
        .map((o) => o.entry.picture),
    ).toEqual(['Ann/3.jpg']);
    expect(bank().outliers(0.05)).toEqual([]);
  });
});
