import { describe, expect, it } from 'vitest';
import { readBin } from '../../../src/face/verification/bin.js';
import { parseLandmarks, parsePairs } from '../../../src/face/verification/lists.js';

const LFW = ['2\t1', 'Ann_Bee\t1\t12', 'Ann_Bee\t2\tCy_Dee\t3', 'Eve\t4\t5', 'Eve\t1\tFay\t2', ''].join('\n');

describe('pairs.txt', () => {
  it('reads folds, same and different pairs', () => {
    const list = parsePairs(LFW);
    expect(list.folds).toEqual([2, 2]);
    expect(list.pairs).toEqual([
      { a: 'Ann_Bee/Ann_Bee_0001.jpg', b: 'Ann_Bee/Ann_Bee_0012.jpg', same: true, line: 2 },
      { a: 'Ann_Bee/Ann_Bee_0002.jpg', b: 'Cy_Dee/Cy_Dee_0003.jpg', same: false, line: 3 },
      { a: 'Eve/Eve_0004.jpg', b: 'Eve/Eve_0005.jpg', same: true, line: 4 },
      { a: 'Eve/Eve_0001.jpg', b: 'Fay/Fay_0002.jpg', same: false, line: 5 },
    ]);
  });

  it('takes Windows line ends, a byte-order mark and a header of one number', () => {
    const list = parsePairs(`\ufeff1\r\nAnn\t1\t2\r\nAnn\t1\tBea\t2\r\n`);
    expect(list.folds).toEqual([2]);
    expect(list.pairs.length).toBe(2);
  });

  it.each([
    [
      '2\t1\nAnn\t1\t2\nAnn\t1\tBea\t2\n',
      /line 1: the header announces 2 × \(1 same \+ 1 different\) = 4 pairs, but 2 lines/,
    ],
    ['1\t1\nAnn\t1\nAnn\t1\tBea\t2\n', /line 2: "Ann\t1" has 2 fields/],
    ['1\t1\nAnn\t1\tx\nAnn\t1\tBea\t2\n', /line 2: "x" is no picture number/],
    ['1\t1\nAnn\t1\tBea\t2\nAnn\t1\tBea\t2\n', /line 2: a pair of different people where one of one person/],
    ['1\t1\n..\t1\t2\nAnn\t1\tBea\t2\n', /line 2: "\.\." is no folder name/],
    ['0\t0\n', /line 1: 0 folds/],
    ['', /is empty/],
  ])('%j', (text, message) => {
    expect(() => parsePairs(text)).toThrow(message);
  });

  it('goes on when told to, and lists what it left out', () => {
    const list = parsePairs('2\t1\nAnn\t1\nAnn\t1\tBea\t2\nEve\t1\t2\nEve\t1\tFay\t2\n', { skipBad: true });
    expect(list.pairs.length).toBe(3);
    expect(list.folds).toEqual([1, 2]);
    expect(list.problems).toEqual([{ line: 2, reason: expect.stringContaining('2 fields') }]);
  });
});

it('a list of malformed lines only says what was skipped', () => {
  for (const text of ['1\t1\nAnn\t1\nBea\n', 'a b\nc d\n']) {
    expect(() => parsePairs(text, { skipBad: true, name: 'x' })).toThrow(
      /^x: too few pairs remain: none\. Skipped:\n {2}line \d: .*\n {2}line \d: /,
    );
  }
});

describe('path path label', () => {
  it('reads blanks, commas and tabs', () => {
    const list = parsePairs('a/1.jpg b/2.jpg 0\nc d/3.jpg,e/4.jpg,1\n# a remark\nf g/5.jpg\th/6.jpg\t1\n');
    expect(list.folds).toBeUndefined();
    expect(list.pairs).toEqual([
      { a: 'a/1.jpg', b: 'b/2.jpg', same: false, line: 1 },
      { a: 'c d/3.jpg', b: 'e/4.jpg', same: true, line: 2 },
      { a: 'f g/5.jpg', b: 'h/6.jpg', same: true, line: 4 },
    ]);
  });

  it.each([
    ['a b 0\na b 2\n', /line 2: the third field is "2"/],
    ['a b\n', /line 1: "a b" has 2 fields/],
    ['a ../../etc/passwd 1\n', /line 1: .* leaves the data folder/],
    ['/etc/passwd a 1\n', /line 1: .* leaves the data folder/],
  ])('%j', (text, message) => {
    expect(() => parsePairs(text)).toThrow(message);
  });
});

describe('landmarks', () => {
  const header = 'file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy';
  it('reads points by column name', () => {
    const points = parseLandmarks(`${header}\na/1.jpg,0,0,9,9,1,1,2,3,4,5,6,7,8,9,10\n`);
    expect(points.get('a/1.jpg')).toEqual([
      [1, 2],
      [3, 4],
      [5, 6],
      [7, 8],
      [9, 10],
    ]);
  });
  it('names the line', () => {
    expect(() => parseLandmarks(`${header}\na/1.jpg,0,0,9,9,1,1,2,3,,5,6,7,8,9,10\n`)).toThrow(/line 2/);
    expect(() => parseLandmarks('file,x\n')).toThrow(/line 1: no column lex/);
  });
});

/** Packs written by Python: pickle.dumps((pictures, labels)), pictures [b'\xff\xd8A', …], labels [True, False]. */
const PACKS: Record<string, string> = {
  'protocol 4, list of bool': 'gASVJQAAAAAAAABdlChDA//YQZRDA//YQpRDA//YQ5RDA//Y6ZRlXZQoiIllhpQu',
  'protocol 2 (as Python 2 reads it)':
    'gAJdcQAoY19jb2RlY3MKZW5jb2RlCnEBWAUAAADDv8OYQXECWAYAAABsYXRpbjFxA4ZxBFJxBWgBWAUAAADDv8OYQnEGaAOGcQdScQhoAVgFAAAAw7/DmENxCWgDhnEKUnELaAFYBgAAAMO/w5jDqXEMaAOGcQ1ScQ5lXXEPKIiJZYZxEC4=',
  'protocol 3, NumPy bool array':
    'gANdcQAoQwP/2EFxAUMD/9hCcQJDA//YQ3EDQwP/2OlxBGVjbnVtcHkuX2NvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQVjbnVtcHkKbmRhcnJheQpxBksAhXEHQwFicQiHcQlScQooSwFLAoVxC2NudW1weQpkdHlwZQpxDFgCAAAAYjFxDYmIh3EOUnEPKEsDWAEAAAB8cRBOTk5K/////0r/////SwB0cRFiiUMCAQBxEnRxE2KGcRQu',
  'protocol 4, list of NumPy bool':
    'gASVkQAAAAAAAABdlChDA//YQZRDA//YQpRDA//YQ5RDA//Y6ZRlXZQojBZudW1weS5fY29yZS5tdWx0aWFycmF5lIwGc2NhbGFylJOUjAVudW1weZSMBWR0eXBllJOUjAJiMZSJiIeUUpQoSwOMAXyUTk5OSv////9K/////0sAdJRiQwEBlIaUUpRoCGgOQwEAlIaUUpRlhpQu',
  'protocol 4, pictures as NumPy u1':
    'gASV+wAAAAAAAABdlCiMFm51bXB5Ll9jb3JlLm11bHRpYXJyYXmUjAxfcmVjb25zdHJ1Y3SUk5SMBW51bXB5lIwHbmRhcnJheZSTlEsAhZRDAWKUh5RSlChLAUsDhZRoBIwFZHR5cGWUk5SMAnUxlImIh5RSlChLA4wBfJROTk5K/////0r/////SwB0lGKJQwP/2EGUdJRiaANoBksAhZRoCIeUUpQoSwFLA4WUaBCJQwP/2EKUdJRiaANoBksAhZRoCIeUUpQoSwFLA4WUaBCJQwP/2EOUdJRiaANoBksAhZRoCIeUUpQoSwFLA4WUaBCJQwP/2OmUdJRiZV2UKIiJZYaULg==',
  'protocol 5, list of int': 'gAWVJwAAAAAAAABdlChDA//YQZRDA//YQpRDA//YQ5RDA//Y6ZRlXZQoSwFLAGWGlC4=',
  'protocol 2 of Python 2 (byte strings)': 'gAJdcQAoVQP/2EFVA//YQlUD/9hDVQP/2OllXSiIiWWGcQEu',
};

describe('InsightFace packs', () => {
  for (const [name, base64] of Object.entries(PACKS)) {
    it(name, () => {
      const { pictures, same } = readBin(Buffer.from(base64, 'base64'));
      expect(pictures.map((p) => [...p])).toEqual([0x41, 0x42, 0x43, 0xe9].map((c) => [0xff, 0xd8, c]));
      expect(same).toEqual([true, false]);
    });
  }

  it('says what is wrong', () => {
    const good = Buffer.from(PACKS['protocol 4, list of bool'], 'base64');
    expect(() => readBin(good.subarray(0, good.length - 9))).toThrow(/is no InsightFace pack/);
    expect(() => readBin(new Uint8Array([1, 2, 3]), 'x.bin')).toThrow(/x\.bin is no InsightFace pack/);
    // pickle.dumps(([b'a'], [True])), pickle.dumps([1]), and one that would call os.system
    expect(() => readBin(Buffer.from('gASVDgAAAAAAAABdlEMBYZRhXZSIYYaULg==', 'base64'))).toThrow(
      /1 pictures for 1 pairs/,
    );
    expect(() => readBin(Buffer.from('gASVBgAAAAAAAABdlEsBYS4=', 'base64'))).toThrow(/a list of 1; a pair/);
    expect(() =>
      readBin(Buffer.from('gASVIgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAdlY2hvIGhplIWUUpQu', 'base64')),
    ).toThrow(/posix\.system.*refused/);
  });
});
