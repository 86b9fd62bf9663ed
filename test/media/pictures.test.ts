import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createCanvas } from '@napi-rs/canvas';
import jpeg from 'jpeg-js';
import { PNG } from 'pngjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  encodePicture,
  outputFormatOf,
  renderAnnotated,
  writePicture,
} from '../../src/media/annotate.node.js';
import { decodePicture, readPicture } from '../../src/media/decode.node.js';
import { type Canvas2D, colourOf, drawFaces } from '../../src/media/draw.js';
import { expandInputs, writeAtomically } from '../../src/media/files.node.js';
import { fontsFor } from '../../src/media/fonts.node.js';
import { readHeader } from '../../src/media/headers.js';
import { applyOrientation, type Picture } from '../../src/media/picture.js';

/** Four flat corners in colours that survive JPEG: red, green / blue, yellow; wider than high. */
const COLOURS = [
  [230, 30, 30],
  [30, 200, 40],
  [30, 40, 220],
  [240, 230, 40],
];
function corners(width = 64, height = 32): Picture {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      data.set([...COLOURS[(y < height / 2 ? 0 : 2) + (x < width / 2 ? 0 : 1)], 255], (y * width + x) * 4);
  return { width, height, data };
}

/** Which colour each corner has, top left, top right, bottom left, bottom right. */
function cornersOf({ width: w, height: h, data }: Picture): number[] {
  const at = (x: number, y: number) => {
    const p = [...data.subarray((y * w + x) * 4, (y * w + x) * 4 + 3)];
    const distances = COLOURS.map((c) => Math.hypot(...c.map((v, k) => v - p[k])));
    expect(Math.min(...distances)).toBeLessThan(40);
    return distances.indexOf(Math.min(...distances));
  };
  return [at(4, 4), at(w - 5, 4), at(4, h - 5), at(w - 5, h - 5)];
}

/** An APP1 segment with an orientation, put behind a JPEG's first marker. */
function withExif(bytes: Uint8Array, orientation: number, little = true): Uint8Array {
  const tiff = new DataView(new ArrayBuffer(26));
  tiff.setUint16(0, little ? 0x4949 : 0x4d4d);
  tiff.setUint16(2, 42, little);
  tiff.setUint32(4, 8, little);
  tiff.setUint16(8, 1, little);
  tiff.setUint16(10, 0x0112, little);
  tiff.setUint16(12, 3, little);
  tiff.setUint32(14, 1, little);
  tiff.setUint16(18, orientation, little);
  const body = [...Buffer.from('Exif\0\0'), ...new Uint8Array(tiff.buffer)];
  return Uint8Array.from([0xff, 0xd8, 0xff, 0xe1, 0, body.length + 2, ...body, ...bytes.subarray(2)]);
}

/** What a stored picture looks like for each orientation, worked out by hand from the EXIF table. */
const SEEN: Record<number, number[]> = {
  1: [0, 1, 2, 3],
  2: [1, 0, 3, 2],
  3: [3, 2, 1, 0],
  4: [2, 3, 0, 1],
  5: [0, 2, 1, 3],
  6: [2, 0, 3, 1],
  7: [3, 1, 2, 0],
  8: [1, 3, 0, 2],
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-media-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('orientation', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('%i is applied exactly once', async (orientation) => {
    const stored = corners();
    expect(cornersOf(applyOrientation(stored, orientation))).toEqual(SEEN[orientation]);
    const plain = await encodePicture(stored, 'jpg');
    for (const little of [true, false]) {
      const seen = await decodePicture(withExif(plain, orientation, little));
      expect([seen.width, seen.height]).toEqual(orientation > 4 ? [32, 64] : [64, 32]);
      expect(cornersOf(seen)).toEqual(SEEN[orientation]);
    }
  });

  it('ignores nonsense', async () => {
    const odd = withExif(await encodePicture(corners(), 'jpg'), 77);
    expect(readHeader(odd)?.orientation).toBe(1);
    expect(cornersOf(await decodePicture(odd))).toEqual(SEEN[1]);
  });
});

describe('formats', () => {
  it.each(['jpg', 'png', 'webp', 'avif'] as const)('%s goes out and comes back', async (format) => {
    const bytes = await encodePicture(corners(), format);
    expect(readHeader(bytes)).toMatchObject({ width: 64, height: 32 });
    expect(cornersOf(await decodePicture(bytes))).toEqual(SEEN[1]);
  });

  it('reads gif and bmp', async () => {
    const bmp = new DataView(new ArrayBuffer(54 + 12));
    for (const [i, v] of [0x42, 0x4d].entries()) bmp.setUint8(i, v);
    bmp.setUint32(2, 66, true);
    bmp.setUint32(10, 54, true);
    bmp.setUint32(14, 40, true);
    bmp.setInt32(18, 1, true);
    bmp.setInt32(22, 2, true);
    bmp.setUint16(26, 1, true);
    bmp.setUint16(28, 24, true);
    // Bottom row first, blue green red: blue below red.
    for (const [i, v] of [220, 40, 30].entries()) bmp.setUint8(54 + i, v);
    for (const [i, v] of [30, 30, 230].entries()) bmp.setUint8(58 + i, v);
    const picture = await decodePicture(new Uint8Array(bmp.buffer));
    expect([...picture.data]).toEqual([230, 30, 30, 255, 30, 40, 220, 255]);
    const gif = Uint8Array.from([
      ...Buffer.from('GIF89a'),
      1,
      0,
      1,
      0,
      0x80,
      0,
      0,
      200,
      10,
      20,
      0,
      0,
      0,
      0x2c,
      0,
      0,
      0,
      0,
      1,
      0,
      1,
      0,
      0,
      2,
      2,
      0x44,
      1,
      0,
      0x3b,
    ]);
    expect([...(await decodePicture(gif)).data]).toEqual([200, 10, 20, 255]);
  });

  it('reads gray, 16-bit, transparent and interlace-free PNGs', async () => {
    const png = new PNG({ width: 2, height: 1, bitDepth: 16 });
    const data = Buffer.from(Uint16Array.of(65535, 0, 32768, 65535, 257, 65535, 0, 65535).buffer);
    const bytes = PNG.sync.write(Object.assign(png, { data }), {
      bitDepth: 16,
      inputHasAlpha: true,
      colorType: 6,
    });
    expect(bytes[24]).toBe(16);
    const picture = await decodePicture(bytes);
    expect(
      [...picture.data].map((v, i) => Math.abs(v - [255, 0, 128, 255, 1, 255, 0, 255][i]) <= 1),
    ).not.toContain(false);
    const gray = PNG.sync.write(
      Object.assign(new PNG({ width: 1, height: 1 }), { data: Buffer.of(9, 9, 9, 255) }),
      { colorType: 0 },
    );
    expect([...(await decodePicture(gray)).data]).toEqual([9, 9, 9, 255]);
  });

  it('reads gray JPEGs like coloured ones', async () => {
    const canvas = createCanvas(16, 16);
    const context = canvas.getContext('2d');
    context.fillStyle = 'rgb(120, 120, 120)';
    context.fillRect(0, 0, 16, 16);
    const picture = await decodePicture(await canvas.encode('jpeg'));
    expect(Math.abs(picture.data[0] - 120)).toBeLessThan(4);
  });

  it('knows four components in a JPEG as CMYK and does not hand them to the canvas', async () => {
    const rgb = jpeg.encode({ width: 8, height: 8, data: Buffer.alloc(256, 200) }, 90).data;
    const sof = rgb.indexOf(Buffer.from([0xff, 0xc0]));
    expect(readHeader(rgb)?.components).toBe(3);
    const four = Buffer.from(rgb);
    four[sof + 9] = 4;
    expect(readHeader(four)?.components).toBe(4);
    await expect(decodePicture(four)).rejects.toThrow(/damaged jpeg/);
  });
});

describe('bad files', () => {
  it.each([
    ['an empty file', new Uint8Array(0), /empty/],
    ['text', Buffer.from('hello, I am a poem in disguise'), /not a picture/],
    [
      'a PNG cut after its header',
      () => encodePicture(corners(), 'png').then((b) => b.subarray(0, 40)),
      /damaged png/,
    ],
    [
      'a truncated JPEG',
      () => encodePicture(corners(640, 480), 'jpg').then((b) => b.subarray(0, b.length - 200)),
      /truncated jpeg/,
    ],
    [
      'a truncated WebP',
      () => encodePicture(corners(), 'webp').then((b) => b.subarray(0, 40)),
      /damaged webp/,
    ],
  ])('%s', async (_, source, message) => {
    const bytes = typeof source === 'function' ? await source() : source;
    await expect(decodePicture(bytes)).rejects.toThrow(message);
  });

  it('a bomb is refused by its header, whatever the format', async () => {
    const huge = Buffer.from(await encodePicture(corners(), 'png'));
    huge.writeUInt32BE(60_000, 16);
    huge.writeUInt32BE(60_000, 20);
    await expect(decodePicture(huge)).rejects.toThrow(
      /declares 60000×60000 pixels, more than the limit of 100/,
    );
    const jpg = Buffer.from(await encodePicture(corners(), 'jpg'));
    const sof = jpg.indexOf(Buffer.from([0xff, 0xc0]));
    jpg.writeUInt16BE(65_000, sof + 5);
    jpg.writeUInt16BE(65_000, sof + 7);
    await expect(decodePicture(jpg)).rejects.toThrow(/more than the limit/);
    await expect(
      decodePicture(await encodePicture(corners(), 'jpg'), { maxMegapixels: 0.001 }),
    ).rejects.toThrow(/limit of 0.001 megapixels/);
  });

  it('names the file', async () => {
    await expect(readPicture(path.join(folder, 'none.jpg'))).rejects.toThrow(/none\.jpg: no such file/);
    await expect(readPicture(folder)).rejects.toThrow(/is a folder/);
  });

  it('reads no more than a picture can be', async () => {
    const huge = path.join(folder, 'huge.jpg');
    await writeFile(huge, '');
    await truncate(huge, 3 * 2 ** 30);
    await expect(readPicture(huge)).rejects.toThrow(/huge\.jpg: is larger than 512 MiB \(3072\)/);
    await rm(huge);
  });

  it.skipIf(process.platform === 'win32')('waits for no pipe', async () => {
    const pipe = path.join(folder, 'pipe.jpg');
    execFileSync('mkfifo', [pipe]);
    // Opens it, should the reader wait: the test fails then, instead of hanging.
    const writer = setTimeout(() => closeSync(openSync(pipe, 'r+')), 5000);
    await expect(readPicture(pipe)).rejects.toThrow(/pipe\.jpg: is no file but a pipe/);
    clearTimeout(writer);
    await rm(pipe);
  });
});

describe('files', () => {
  it('expands folders, patterns and names once each, in natural order, non-ASCII too', async () => {
    const root = path.join(folder, 'Übung 写真');
    await mkdir(path.join(root, 'b'), { recursive: true });
    const picture = await encodePicture(corners(), 'png');
    for (const name of ['10.png', '9.png', 'b/ż.JPG', 'notes.txt', '.hidden.png'])
      await writeFile(path.join(root, name), picture);
    const { files, problems } = await expandInputs([
      root,
      path.join(root, '9.png'),
      'missing.jpg',
      path.join(root, '*.gif'),
    ]);
    expect(files.map((f) => f.relative)).toEqual(['9.png', '10.png', 'b/ż.JPG']);
    expect(problems.map((p) => p.reason)).toEqual([
      'no such file or folder',
      'the pattern matches no picture',
    ]);
    expect((await readPicture(files[2].path)).width).toBe(64);
  });

  it('writes under a temporary name first and leaves none behind', async () => {
    const target = path.join(folder, 'deep', 'er', 'x.webp');
    await writePicture(target, corners());
    expect(await readdir(path.dirname(target))).toEqual(['x.webp']);
    await mkdir(path.join(folder, 'taken.txt'));
    await expect(writeAtomically(path.join(folder, 'taken.txt'), 'x')).rejects.toThrow();
    expect((await readdir(folder)).filter((n) => n.endsWith('.tmp'))).toEqual([]);
    await expect(writePicture(path.join(folder, 'x.tga'), corners())).rejects.toThrow(
      /written as jpg, png, webp, avif/,
    );
    expect(['a.JPEG', 'a.png', 'a'].map(outputFormatOf)).toEqual(['jpg', 'png', undefined]);
  });
});

/** Records what is drawn. */
function recorder() {
  const calls: {
    what: string;
    at: number[];
    text?: string;
    width?: number;
    colour?: unknown;
    direction?: string;
  }[] = [];
  const context = {
    strokeStyle: '',
    fillStyle: '',
    lineWidth: 0,
    font: '',
    textBaseline: '',
    textAlign: '',
    direction: '',
    strokeRect: (...at: number[]) =>
      calls.push({ what: 'box', at, width: context.lineWidth, colour: context.strokeStyle }),
    fillRect: (...at: number[]) => calls.push({ what: 'label', at }),
    arc: (x: number, y: number, r: number) => calls.push({ what: 'point', at: [x, y, r] }),
    fillText: (text: string, x: number, y: number) =>
      calls.push({ what: 'text', at: [x, y], text, direction: context.direction, colour: context.fillStyle }),
    measureText: (text: string) => ({ width: text.length * Number.parseFloat(context.font) * 0.6 }),
    beginPath() {},
    fill() {},
    stroke() {},
  };
  return { calls, context: context as unknown as Canvas2D };
}

describe('drawing', () => {
  const box = { x1: 100, y1: 100, x2: 220, y2: 250 };
  const landmarks = [
    [130, 150],
    [190, 150],
    [160, 180],
    [140, 210],
    [180, 210],
  ] as const;

  it('a box as wide as a thirtieth of the face, five points, name and score under it', () => {
    const { calls, context } = recorder();
    drawFaces(context, [{ box, landmarks, label: 'Ann', similarity: 0.712, status: 'known' }], {
      width: 400,
      height: 400,
    });
    expect(calls[0]).toMatchObject({ what: 'box', at: [100, 100, 120, 150], width: 4 });
    expect(calls.filter((c) => c.what === 'point').map((c) => c.at.slice(0, 2))).toEqual(
      landmarks.map((p) => [...p]),
    );
    expect(calls.at(-1)).toMatchObject({ text: 'Ann 0.71', direction: 'ltr' });
    expect(calls.at(-1)!.at[1]).toBeGreaterThan(250);
    const without = recorder();
    drawFaces(without.context, [{ box, landmarks }], { width: 400, height: 400, landmarks: false });
    expect(without.calls.map((c) => c.what)).toEqual(['box']);
  });

  it('keeps labels inside the picture and apart from each other', () => {
    const faces = [
      { box: { x1: -20, y1: -10, x2: 40, y2: 60 }, label: 'A rather long name', status: 'known' as const },
      { box: { x1: 330, y1: 340, x2: 395, y2: 398 }, label: 'Another long name', status: 'known' as const },
      { box: { x1: 335, y1: 300, x2: 399, y2: 390 }, label: 'A third', status: 'known' as const },
    ];
    const { calls, context } = recorder();
    drawFaces(context, faces, { width: 400, height: 400 });
    const labels = calls.filter((c) => c.what === 'label').map((c) => c.at);
    expect(labels.length).toBe(3);
    for (const [x, y, w, h] of labels) expect(x >= 0 && y >= 0 && x + w <= 400 && y + h <= 400).toBe(true);
    for (const [i, a] of labels.entries())
      for (const b of labels.slice(i + 1))
        expect(a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3]).toBe(
          false,
        );
  });

  it('gives each name its colour, unknown white, uncertain a question mark, Hebrew its direction', () => {
    expect(colourOf({ box, label: 'Ann' })).toBe(colourOf({ box, label: 'Ann', status: 'uncertain' }));
    expect(colourOf({ box, label: 'Ann' })).not.toBe(colourOf({ box, label: 'Bob' }));
    expect(colourOf({ box, label: 'unknown', status: 'unknown' })).toBe('#ffffff');
    const { calls, context } = recorder();
    drawFaces(context, [{ box, label: 'עברית', status: 'uncertain' }], { width: 400, height: 400 });
    expect(calls.at(-1)).toMatchObject({ text: 'עברית?', direction: 'rtl' });
  });
});

describe('fonts', () => {
  /** Dark pixels of a label drawn in a font family list. */
  function ink(text: string, fonts: string): { dark: number; shape: string } {
    const canvas = createCanvas(300, 60);
    const context = canvas.getContext('2d');
    context.font = `40px ${fonts}`;
    context.fillText(text, 5, 45);
    const { data } = context.getImageData(0, 0, 300, 60);
    const alpha = data.filter((_, i) => i % 4 === 3);
    return { dark: alpha.filter((a) => a > 128).length, shape: Buffer.from(alpha).toString('base64') };
  }

  it.each(['Łukasz', 'Σωκράτης', 'Юлия', 'עברית', 'العربية', '张伟', '한국어', 'हिन्दी', 'ไทย'])(
    '%s is drawn, not boxes',
    (name) => {
      const fonts = fontsFor([name]);
      const letters = [...name].map((c) => ink(c, fonts));
      expect(Math.max(...letters.map((l) => l.dark))).toBeGreaterThan(50);
      // A font without these characters draws the same placeholder for each.
      expect(new Set(letters.map((l) => l.shape)).size).toBeGreaterThan(1);
      expect(letters[0].shape).not.toBe(ink('\u{10fffe}', fonts).shape);
    },
  );

  it('refuses a font file that is none', async () => {
    const file = path.join(folder, 'font.ttf');
    await writeFile(file, 'not a font');
    expect(() => fontsFor(['a'], file)).toThrow(/not a font/);
    expect(() => fontsFor(['a'], `${file}.missing`)).toThrow(/no such file/);
  });

  it('annotates a picture and gives a picture back', async () => {
    const face = { box: { x1: 8, y1: 4, x2: 40, y2: 28 }, label: '张伟', status: 'known' as const };
    const out = await decodePicture(await renderAnnotated(corners(), [face], { format: 'png' }));
    expect([out.width, out.height]).toEqual([64, 32]);
    expect(Buffer.compare(Buffer.from(out.data), Buffer.from(corners().data))).not.toBe(0);
  });
});
