import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GpuError } from '../../src/gpu/errors.js';
import { encodePicture } from '../../src/media/annotate.node.js';
import {
  AUGMENTATIONS,
  type Augmentation,
  augment,
  parseAugmentation,
} from '../../src/train/data/augment.js';
import { jpegArtefacts } from '../../src/train/data/jpeg.js';
import { listPictures } from '../../src/train/data/listing.node.js';
import { MemorySource } from '../../src/train/data/memory_source.js';
import { openSets } from '../../src/train/data/open.node.js';
import { ensurePack, openPack } from '../../src/train/data/pack.node.js';
import { PackedSource, readTeacher } from '../../src/train/data/packed_source.node.js';
import { blur, resize } from '../../src/train/data/resample.js';
import { type Batch, type DataSource, Order, UNLABELLED } from '../../src/train/data/source.js';
import { prepareTeacher } from '../../src/train/data/teacher.js';
import { Random } from '../../src/train/random.js';
import { noise } from '../check_op.js';
import { drawPerson, people } from './people.js';

const SIDE = 24;
const PLAIN = { mean: 0, scale: 1 };
const base = {
  side: SIDE,
  size: 12,
  batch: 3,
  seed: 5,
  augmentation: { mirror: 0.5, affine: 1, erase: 0.5 },
};
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'wfr-data-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function put(name: string, content: string | Uint8Array): string {
  const file = join(folder, name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

async function png(rgb: Uint8Array, side = SIDE): Promise<Uint8Array> {
  const data = new Uint8ClampedArray(side * side * 4).fill(255);
  for (let i = 0; i < side * side; i++) for (let k = 0; k < 3; k++) data[i * 4 + k] = rgb[i * 3 + k];
  return encodePicture({ width: side, height: side, data }, 'png');
}

async function putPeople(count: number, pictures: number): Promise<void> {
  for (const { name, rgb } of people(count, pictures, SIDE)) put(`set/${name}`, await png(rgb));
}

async function take(source: DataSource, from: number, count: number): Promise<Batch[]> {
  const out: Batch[] = [];
  for await (const batch of source.batches(from)) {
    out.push(batch);
    if (out.length === count) break;
  }
  return out;
}

/** A NumPy file of f32. */
function npy(rows: number, columns: number, data: Float32Array): Uint8Array {
  const header = `${`{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`.padEnd(117)}\n`;
  const head = Buffer.concat([
    Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]),
    Buffer.from(header),
  ]);
  return Buffer.concat([head, Buffer.from(data.buffer)]);
}

describe('listing pictures', () => {
  it('takes folders as identities, in natural order, and loose pictures without one', async () => {
    for (const name of ['b/10.png', 'b/9.png', 'a/x/1.jpg', 'loose.webp', 'a/readme.txt', '.hidden/1.png'])
      put(name, '');
    const { pictures } = await listPictures(folder);
    expect(pictures.map((p) => [p.name, p.identity])).toEqual([
      [join('a', 'x', '1.jpg'), 'a'],
      [join('b', '9.png'), 'b'],
      [join('b', '10.png'), 'b'],
      ['loose.webp', undefined],
    ]);
  });

  it('follows links to folders, not in circles, and names one that leads nowhere', async () => {
    put('elsewhere/bob/x/1.png', '');
    put('set/ann/1.png', '');
    const link = (to: string, name: string) => symlinkSync(join(folder, to), join(folder, name), 'junction');
    link('elsewhere/bob', 'set/bob');
    link('set', 'set/ann/round');
    link('elsewhere', 'elsewhere/bob/x/round');
    const listed = async () =>
      (await listPictures(join(folder, 'set'))).pictures.map((p) => [p.name, p.identity]);
    expect(await listed()).toEqual([
      [join('ann', '1.png'), 'ann'],
      [join('bob', 'x', '1.png'), 'bob'],
    ]);
    link('nowhere', 'set/cid');
    await expect(listed()).rejects.toThrow(/set.cid is a link that leads nowhere/);
  });

  it('follows index.csv where there is one', async () => {
    put('index.csv', 'source,file,identity\nx,q/1.jpg,ann\ny,q/2.jpg,\n');
    const { pictures } = await listPictures(folder);
    expect(pictures.map((p) => [p.name, p.identity])).toEqual([
      ['q/1.jpg', 'ann'],
      ['q/2.jpg', undefined],
    ]);
    put('index.csv', 'file\n../secret.jpg\n');
    await expect(listPictures(folder)).rejects.toThrow(
      /index\.csv, line 2: "\.\.\/secret\.jpg" names no file below/,
    );
    put('index.csv', 'name\n1.jpg\n');
    await expect(listPictures(folder)).rejects.toThrow(/no column "file"/);
  });

  it('reads lists, and names the line that is wrong', async () => {
    const list = put('list.txt', '# mine\na/1.jpg\tAnn Lee\nb/2.png\n');
    const { pictures } = await listPictures(list);
    expect(pictures.map((p) => p.identity)).toEqual(['Ann Lee', 'b']);
    put('list.txt', 'a/1.jpg ann\nnonsense here\n');
    await expect(listPictures(list)).rejects.toThrow(/list\.txt, line 2/);
    await expect(listPictures(join(folder, 'nowhere'))).rejects.toThrow(/no such folder/);
    mkdirSync(join(folder, 'empty'));
    await expect(listPictures(join(folder, 'empty'))).rejects.toThrow(/holds no pictures/);
  });
});

describe('packs', () => {
  it('hold the pixels, skip and report broken pictures, and are made once', async () => {
    await putPeople(2, 2);
    put('set/p01/broken.png', 'no picture');
    const listing = await listPictures(join(folder, 'set'));
    const problems: string[] = [];
    const file = join(folder, 'set.pack');
    const options = {
      side: SIDE,
      encoding: 'raw' as const,
      onPicture: (n: string, why?: string) => why && problems.push(`${n}: ${why}`),
    };
    const { index } = await ensurePack(listing, file, options);
    expect(index.names).toEqual(
      ['p00/0.png', 'p00/1.png', 'p01/0.png', 'p01/1.png'].map((n) => join(...n.split('/'))),
    );
    expect(index.rows).toEqual([0, 1, 2, 3]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(/broken\.png: not a picture/);
    const bytes = readFileSync(file);
    expect([...bytes.subarray(index.offsets[1], index.offsets[2])]).toEqual([...drawPerson(0, 1, SIDE)]);
    problems.length = 0;
    await ensurePack(listing, file, options);
    expect(problems).toHaveLength(0);
    utimesSync(join(folder, 'set/p00/0.png'), 1, 1);
    await ensurePack(listing, file, options);
    expect(problems).toHaveLength(1);
    expect(readdirSync(folder).filter((n) => n.endsWith('.tmp'))).toEqual([]);
  });

  it('are not written when what fails is not a picture', async () => {
    put(
      'set/a/1.png',
      await encodePicture({ width: 40, height: 20, data: new Uint8ClampedArray(3200) }, 'png'),
    );
    const file = join(folder, 'set.pack');
    const listing = await listPictures(join(folder, 'set'));
    const align = async () => {
      throw new GpuError('device lost');
    };
    await expect(ensurePack(listing, file, { side: SIDE, align })).rejects.toThrow('device lost');
    expect(existsSync(file)).toBe(false);
  });

  it('tell what data they hold by its content, not by where and when it was packed', async () => {
    const data = async (changed = false) => {
      await putPeople(2, 2);
      if (changed) put('set/p01/1.png', await png(drawPerson(9, 9, SIDE)));
      utimesSync(join(folder, 'set/p00/0.png'), 1, 1 + Math.random());
      const set = await openSets([join(folder, 'set')], [], {
        cache: mkdtempSync(join(folder, 'cache')),
        side: SIDE,
        encoding: 'raw',
      });
      const source = new PackedSource(set, { ...base, batch: 2, normalisation: PLAIN });
      await source.close();
      return source.origin;
    };
    const first = await data();
    expect(first).toMatchObject({ pictures: 4, identities: 2, augmentation: base.augmentation });
    expect(await data()).toEqual(first);
    expect((await data(true)).data).not.toBe(first.data);
  });

  it('that were cut short are refused and made anew', async () => {
    await putPeople(1, 2);
    const listing = await listPictures(join(folder, 'set'));
    const file = join(folder, 'set.pack');
    await ensurePack(listing, file, { side: SIDE });
    truncateSync(file, 400);
    await expect(openPack(file)).rejects.toThrow(/its end is missing/);
    expect((await ensurePack(listing, file, { side: SIDE })).index.names).toHaveLength(2);
    await expect(openPack(put('x.pack', 'something else, long enough'))).rejects.toThrow(/not a pack/);
  });

  it('align or fit pictures of other sizes; a set without any usable picture is an error', async () => {
    put(
      'set/a/wide.png',
      await encodePicture({ width: 40, height: 20, data: new Uint8ClampedArray(3200).fill(90) }, 'png'),
    );
    const listing = await listPictures(join(folder, 'set'));
    const { index } = await ensurePack(listing, join(folder, 'a.pack'), { side: SIDE, encoding: 'raw' });
    expect(index.offsets[1] - index.offsets[0]).toBe(SIDE * SIDE * 3);
    const align = async () => undefined;
    await expect(ensurePack(listing, join(folder, 'b.pack'), { side: SIDE, align })).rejects.toThrow(
      /none of its pictures/,
    );
    expect(existsSync(join(folder, 'b.pack'))).toBe(false);
  });
});

describe('batches', () => {
  it('from worker threads equal those from memory, whatever the threads and wherever they begin', async () => {
    await putPeople(4, 2);
    const [set] = await openSets([join(folder, 'set')], [], {
      cache: join(folder, 'cache'),
      side: SIDE,
      encoding: 'raw',
    });
    const normalisation = { mean: 127.5, scale: 1 / 127.5 };
    const memory = new MemorySource(people(4, 2, SIDE), base);
    expect(memory.stepsPerEpoch).toBe(2);
    const want = await take(memory, 0, 5);
    for (const threads of [1, 2]) {
      const source = new PackedSource([set], { ...base, normalisation, threads });
      try {
        expect(await take(source, 0, 5)).toEqual(want);
        expect(await take(source, 3, 2)).toEqual(want.slice(3));
        expect(source.nameOf(want[0].pictures[0])).toContain('p0');
      } finally {
        await source.close();
      }
    }
    const other = await take(new MemorySource(people(4, 2, SIDE), { ...base, seed: 6 }), 0, 1);
    expect(other[0].x).not.toEqual(want[0].x);
  });

  it('compressed packs decode to the same', async () => {
    await putPeople(2, 2);
    const [set] = await openSets([join(folder, 'set')], [], {
      cache: join(folder, 'cache'),
      side: SIDE,
      encoding: 'compressed',
    });
    const source = new PackedSource([set], { ...base, normalisation: { mean: 127.5, scale: 1 / 127.5 } });
    try {
      expect(await take(source, 0, 1)).toEqual(await take(new MemorySource(people(2, 2, SIDE), base), 0, 1));
    } finally {
      await source.close();
    }
  });

  it('see every picture once an epoch, in an order of the epoch, and drop the rest', () => {
    const order = new Order(10, { seed: 1, batch: 3 });
    const epoch = (e: number) => [0, 1, 2].flatMap((s) => [...order.at(e * 3 + s).pictures]);
    expect(new Set(epoch(0)).size).toBe(9);
    expect(epoch(0)).not.toEqual(epoch(1));
    expect(epoch(0)).toEqual(epoch(0));
    expect(() => new Order(2, { seed: 1, batch: 3 })).toThrow(
      /batch of 3 needs as many pictures; there are 2/,
    );
  });

  it('put identities of the same name together and leave the others unlabelled', async () => {
    await putPeople(2, 2);
    put('more/p01/new.png', await png(drawPerson(1, 9, SIDE)));
    put('more/free.png', await png(drawPerson(7, 0, SIDE)));
    const teacher = put('t.npy', npy(2, 3, noise(6)));
    const sets = await openSets([join(folder, 'set'), join(folder, 'more')], [undefined, teacher], {
      cache: folder,
      side: SIDE,
    });
    const source = new PackedSource(sets, { ...base, normalisation: PLAIN });
    try {
      expect(source.identities).toEqual(['p00', 'p01']);
      const listed = sets[1].pack.index.identities;
      expect([...source.labels]).toEqual([0, 0, 1, 1, ...listed.map((i) => (i === null ? UNLABELLED : 1))]);
      const [batch] = await take(source, 0, 1);
      for (const [i, p] of batch.pictures.entries()) {
        const row = batch.teacher!.subarray(i * 3, i * 3 + 3);
        expect(Math.hypot(...row)).toBeCloseTo(p < 4 ? 0 : 1, 5);
      }
    } finally {
      await source.close();
    }
  });

  it('teacher files must fit their data', async () => {
    await putPeople(1, 2);
    const [set] = await openSets([join(folder, 'set')], [], { cache: folder, side: SIDE });
    const file = put('t.npy', npy(3, 2, noise(6)));
    await expect(readTeacher(file, set.pack)).rejects.toThrow(
      /has 3 rows, but its data set lists 2 pictures/,
    );
    const bad = async (name: string, content: Uint8Array | string, message: RegExp) =>
      await expect(readTeacher(put(name, content), set.pack)).rejects.toThrow(message);
    await bad('text.npy', 'no matrix', /text\.npy: a matrix of N × T embeddings \(\.npy\) was expected: /);
    await bad('none.npy', npy(2, 0, Float32Array.of()), /none\.npy: .* it is 2 × 0/);
    await bad(
      'odd.npy',
      npy(2, 2, Float32Array.of(1, 2, Number.POSITIVE_INFINITY, 4)),
      /odd\.npy, row 2: Infinity is among/,
    );
    await bad('half.npy', npy(2, 2, Float32Array.of(Number.NaN, 2, 3, 4)), /half\.npy, row 1: NaN is among/);
    const without = put('without.npy', npy(2, 2, Float32Array.of(Number.NaN, Number.NaN, 3, 4)));
    expect((await readTeacher(without, set.pack))!.data[0]).toBeNaN();
    await expect(openSets([join(folder, 'set')], ['a', 'b'], { cache: folder, side: SIDE })).rejects.toThrow(
      /1 data sets and 2 teacher files/,
    );
  });
});

describe('teachers', () => {
  it('are centred and normalised; rows that are not finite teach nothing', () => {
    const data = Float32Array.from([3, 1, 5, 1, Number.NaN, 2, 4, 4]);
    const out = prepareTeacher([{ rows: [0, 1, 2, 3], data }, { rows: [0] }], 2, 1);
    const centred = [[-1, -1], [1, -1], undefined, [0, 2], undefined];
    centred.forEach((row, i) => {
      const length = row ? Math.hypot(...row) : 1;
      expect(out[i * 2]).toBeCloseTo((row?.[0] ?? 0) / length, 6);
      expect(out[i * 2 + 1]).toBeCloseTo((row?.[1] ?? 0) / length, 6);
    });
  });

  it('keep a share of their mean', () => {
    const data = Float32Array.from([3, 1, 5, 1, 4, 4]);
    const out = prepareTeacher([{ rows: [0, 1, 2], data }], 2, 0.5);
    const rows = [
      [3 - 2, 1 - 1],
      [5 - 2, 1 - 1],
      [4 - 2, 4 - 1],
    ];
    rows.forEach(([x, y], i) => {
      expect(out[i * 2]).toBeCloseTo(x / Math.hypot(x, y), 6);
      expect(out[i * 2 + 1]).toBeCloseTo(y / Math.hypot(x, y), 6);
    });
  });
});

describe('a teacher that teaches nothing', () => {
  const rows = [0, 1, 2];
  it.each([
    [
      'the same for all',
      [0.1, 0.7, 0.1, 0.7, 0.1, 0.7],
      /^t\.npy teaches .*: of 3 pictures, 3 .* all of these are the same/,
    ],
    ['nothing but NaN', new Array(6).fill(Number.NaN), /of 3 pictures, 0 have an embedding/],
    ['one only', [1, 2, ...new Array(4).fill(Number.NaN)], /of 3 pictures, 1 .* none is left/],
  ])('is refused: %s', (_, values, message) => {
    for (const share of [0, 0.8, 1])
      expect(() => prepareTeacher([{ rows, data: Float32Array.from(values) }], 2, share, 't.npy')).toThrow(
        message,
      );
  });
});

describe('augmentation', () => {
  const face = drawPerson(3, 0, SIDE);
  const run = (a: Augmentation, size = SIDE, seed = 1) => {
    const out = new Float32Array(size * size * 3);
    augment(face, SIDE, out, size, a, Random.of(seed), PLAIN);
    return out;
  };

  it('without any is the picture itself, and at half the size the mean of four', () => {
    expect(run({})).toEqual(Float32Array.from(face));
    const half = run({}, SIDE / 2);
    for (let k = 0; k < 3; k++) {
      const at = (y: number, x: number) => face[(y * SIDE + x) * 3 + k];
      expect(half[(5 * 12 + 7) * 3 + k]).toBeCloseTo(
        (at(10, 14) + at(10, 15) + at(11, 14) + at(11, 15)) / 4,
        3,
      );
    }
  });

  it('mirror swaps left and right', () => {
    const mirrored = run({ mirror: 1 });
    for (let x = 0; x < SIDE; x++)
      expect(mirrored[(4 * SIDE + x) * 3]).toBeCloseTo(face[(4 * SIDE + SIDE - 1 - x) * 3], 2);
  });

  it.each(AUGMENTATIONS)('%s changes the picture, repeatably, within 0 … 255', (name) => {
    const out = run({ [name]: 1 });
    expect(out).not.toEqual(Float32Array.from(face));
    expect(run({ [name]: 1 })).toEqual(out);
    expect(Math.min(...out)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...out)).toBeLessThanOrEqual(255);
    if (name !== 'mirror')
      expect(run({ [name]: 1 }, SIDE, 2).some((v, i) => v !== out[i])).toBe(name !== 'gray');
  });

  it('one kind does not change what another draws', () => {
    const erased = run({ erase: 1 });
    const both = run({ erase: 1, blur: 0.0001 });
    expect(both).toEqual(erased);
  });

  it('is parsed with probabilities, and unknown names are refused', () => {
    expect(parseAugmentation('mirror,erase=0.1')).toEqual({ mirror: 0.5, erase: 0.1 });
    expect(parseAugmentation('none')).toEqual({});
    expect(Object.keys(parseAugmentation('all'))).toEqual([...AUGMENTATIONS]);
    expect(() => parseAugmentation('mirror,sparkle')).toThrow(
      /"sparkle" is no augmentation: choose from mirror/,
    );
    expect(() => parseAugmentation('blur=2')).toThrow(/probability of blur/);
  });

  it('JPEG at full quality changes little, at low quality more; a flat picture stays flat', () => {
    const error = (quality: number) => {
      const pixels = Float32Array.from(face);
      jpegArtefacts(pixels, SIDE, quality);
      return pixels.reduce((sum, v, i) => sum + Math.abs(v - face[i]), 0) / face.length;
    };
    expect(error(100)).toBeLessThan(1.5);
    expect(error(20)).toBeGreaterThan(2 * error(90));
    const flat = new Float32Array(20 * 20 * 3).fill(128);
    jpegArtefacts(flat, 20, 50);
    for (const v of flat) expect(v).toBeCloseTo(128, 3);
  });

  it('resizing keeps the mean, blurring too', () => {
    const pixels = Float32Array.from(face);
    const mean = (p: Float32Array) => p.reduce((a, b) => a + b) / p.length;
    expect(mean(resize(pixels, SIDE, 7))).toBeCloseTo(mean(pixels), 2);
    expect(mean(blur(new Float32Array(300).fill(40), 10, 1.3))).toBeCloseTo(40, 3);
  });
});
