import { existsSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { readPicture } from '../../src/media/decode.node.js';
import { complained, filesBelow, inDir, inTemporaryFolder, printed, put, wfr, wfrJson } from './helpers.js';

inTemporaryFolder();

describe('wfr annotate', () => {
  it('goes on after a bad picture, keeps the folders, and says so in its exit status', async () => {
    await put('in/a.png', 120, 100);
    await put('in/trip/zdjęcie 张.jpg', 90, 110, 2);
    await put('in/tiny.png', 8, 8);
    writeFileSync(inDir('in', 'broken.jpg'), 'this is no picture');
    await wfr('annotate', inDir('in'), '--out', inDir('out'), '--crops', inDir('crops'), '--json');
    expect(process.exitCode).toBe(1);
    expect(filesBelow(inDir('out'))).toEqual(['a.png', 'tiny.png', 'trip/zdjęcie 张.jpg']);
    const report = JSON.parse(printed.join('\n'));
    expect(report.failed).toHaveLength(1);
    expect(report.failed[0].path).toMatch(/broken\.jpg$/);
    expect(complained.join('')).toMatch(/broken\.jpg: not a picture/);
    const byName = new Map<string, { faces: { box: object; landmarks: number[][] }[] }>(
      report.pictures.map((p: { path: string }) => [path.basename(p.path), p]),
    );
    const { faces } = byName.get('a.png')!;
    expect(faces.length).toBeGreaterThan(0);
    expect(faces[0].landmarks).toHaveLength(5);
    expect(byName.get('tiny.png')!.faces).toEqual([]);
    expect(filesBelow(inDir('crops')).filter((f) => f.startsWith('a-'))).toHaveLength(faces.length);
  });

  it('draws into the copy and leaves the original alone', async () => {
    await put('a.png', 120, 100);
    const before = await readFile(inDir('a.png'));
    await wfr('annotate', inDir('a.png'), '--out', inDir('b.png'));
    expect(process.exitCode ?? 0).toBe(0);
    expect(await readFile(inDir('a.png'))).toEqual(before);
    const [original, drawn] = [await readPicture(inDir('a.png')), await readPicture(inDir('b.png'))];
    expect([drawn.width, drawn.height]).toEqual([120, 100]);
    expect(Buffer.compare(original.data as Uint8Array, drawn.data as Uint8Array)).not.toBe(0);
    expect(printed.join('\n')).toContain('b.png');
  });

  it('names people of a bank', async () => {
    await put('bank/Łukasz/one.png', 120, 100);
    await put('a.png', 120, 100);
    await wfr(
      'annotate',
      inDir('a.png'),
      '--bank',
      inDir('bank'),
      '--out',
      inDir('out'),
      '--json',
      '--threshold',
      '0.9',
      // As the bank's pictures are searched: the same picture then gives the same points.
      '--min-face',
      '20',
    );
    const [picture] = JSON.parse(printed.join('\n')).pictures;
    const known = picture.faces.filter((f: { status: string }) => f.status === 'known');
    expect(known.length).toBeGreaterThan(0);
    expect(known[0]).toMatchObject({ name: 'Łukasz' });
    expect(Math.max(...known.map((f: { similarity: number }) => f.similarity))).toBeCloseTo(1, 3);
  });

  it('gives pictures of one name a result and crops each', async () => {
    await put('in/a.png', 120, 100);
    await put('in/a.jpg', 90, 110, 2);
    const { pictures } = await wfrJson(
      'annotate',
      inDir('in'),
      '--format',
      'png',
      '--out',
      inDir('out'),
      '--crops',
      inDir('crops'),
    );
    expect(filesBelow(inDir('out'))).toEqual(['a (2).png', 'a.png']);
    const faces = pictures.map((p: { faces: object[] }) => p.faces.length);
    expect(Math.min(...faces)).toBeGreaterThan(0);
    const crops = filesBelow(inDir('crops'));
    expect(crops.filter((f) => f.startsWith('a-'))).toHaveLength(faces[0]);
    expect(crops.filter((f) => f.startsWith('a (2)-'))).toHaveLength(faces[1]);
  });

  it('tells at once of a font that cannot be used', async () => {
    await put('a.png', 120, 100);
    for (const font of [inDir('a.png'), inDir('none.ttf')]) {
      await wfr('annotate', inDir('a.png'), '--font', font, '--out', inDir('out'));
      expect(process.exitCode).toBe(1);
      expect(complained.join('')).toContain(`--font ${font}: `);
    }
    expect(existsSync(inDir('out'))).toBe(false);
  });

  it('refuses to write over a picture that it reads', async () => {
    await put('in/a.png', 40, 40);
    await wfr('annotate', inDir('in'), '--out', inDir('in'));
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toMatch(/one of the files given/);
    expect(filesBelow(inDir('in'))).toEqual(['a.png']);
  });

  it('says where it looked when there is nothing to do', async () => {
    await wfr('annotate', inDir('nowhere', '*.jpg'), '--out', inDir('out'));
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toMatch(/matches no picture/);
    expect(existsSync(inDir('out'))).toBe(false);
  });

  it('leaves whole files only when it is interrupted', async () => {
    for (let i = 0; i < 40; i++) await put(`in/${i}.png`, 100, 100, 1 + i / 10);
    const done = wfr('annotate', inDir('in'), '--out', inDir('out'));
    await vi.waitFor(() => expect(filesBelow(inDir('out')).length).toBeGreaterThan(0), {
      timeout: 30_000,
      interval: 5,
    });
    process.emit('SIGINT');
    await done;
    expect(process.exitCode).toBe(130);
    const files = filesBelow(inDir('out'));
    expect(files.length).toBeLessThan(40);
    for (const file of files) {
      expect(file).toMatch(/\.png$/);
      expect((await readPicture(inDir('out', file))).width).toBe(100);
    }
  });
});

describe('wfr detect', () => {
  it('prints boxes, points and scores as JSON', async () => {
    await put('a.png', 120, 100);
    await wfr('detect', inDir('a.png'), '--json');
    const { pictures, failed } = JSON.parse(printed.join('\n'));
    expect(failed).toEqual([]);
    expect(pictures[0]).toMatchObject({ width: 120, height: 100 });
    for (const face of pictures[0].faces) {
      expect(face.box.x2).toBeGreaterThan(face.box.x1);
      expect(face.score).toBeGreaterThan(0.7);
      expect(face.landmarks).toHaveLength(5);
    }
    expect(pictures[0].faces.length).toBeGreaterThan(0);
  });
});

describe('wfr align', () => {
  it('cuts faces of 112×112, keeps the folders and reports what it skipped', async () => {
    await put('in/Ann/1.jpg', 120, 100);
    await put('in/Ben/1.png', 100, 120, 3);
    await put('in/Ben/empty.png', 8, 8);
    await wfr('align', inDir('in'), '--out', inDir('faces'), '--min-face', '50', '--json');
    expect(process.exitCode).toBe(1);
    const report = JSON.parse(printed.join('\n'));
    expect(report.aligned).toBe(2);
    expect(report.skipped).toEqual([{ path: inDir('in', 'Ben', 'empty.png'), reason: 'no face found' }]);
    expect(filesBelow(inDir('faces'))).toEqual(['Ann/1.png', 'Ben/1.png']);
    const face = await readPicture(inDir('faces', 'Ann', '1.png'));
    expect([face.width, face.height]).toEqual([112, 112]);
  });

  it('never writes over a picture that it reads, nor over a face it has written', async () => {
    await put('in/a.png', 120, 100);
    await put('in/a.jpg', 100, 120, 3);
    const before = await readFile(inDir('in', 'a.png'));
    await wfr('align', inDir('in'), '--out', inDir('in'));
    expect(process.exitCode).toBe(1);
    expect(complained.join('')).toMatch(/a\.png is one of the files given/);
    expect(await readFile(inDir('in', 'a.png'))).toEqual(before);
    expect((await wfrJson('align', inDir('in'), '--out', inDir('faces'))).aligned).toBe(2);
    expect(filesBelow(inDir('faces'))).toEqual(['a (2).png', 'a.png']);
  });
});
