import { createCanvas } from '@napi-rs/canvas';
import { describe, expect, it } from 'vitest';
import { GpuPicture } from '../../src/face/gpu_picture.js';
import { yuvReference } from '../../src/kernels/picture/reference.js';
import {
  blend,
  displayed,
  frameBytes,
  type I420Frame,
  matrixOf,
  type Rotation,
  toPicture,
  toStored,
  yuvCoefficients,
} from '../../src/media/video/i420.js';
import { Overlay, type OverlayContext } from '../../src/media/video/overlay.js';
import { sharedGpu } from '../check_op.js';

const ROTATIONS: Rotation[] = [0, 90, 180, 270];

/** A frame in which all bytes differ from their neighbours, over the whole range and a little beyond. */
function frameOf(width: number, height: number): I420Frame {
  const data = Uint8Array.from(
    { length: frameBytes(width, height) },
    (_, i) => (i * 89 + Math.floor(i / 11) * 7) % 256,
  );
  return { width, height, data };
}

const copy = (frame: I420Frame): I420Frame => ({ ...frame, data: frame.data.slice() });

describe('colour', () => {
  it.each(['bt601', 'bt709', 'bt2020'] as const)('%s: gray stays gray, the primaries come out', (matrix) => {
    const k = yuvCoefficients(matrix);
    const rgb = (y: number, u: number, v: number) => [
      (y - 16) * k.y + k.rv * (v - 128),
      (y - 16) * k.y + k.gu * (u - 128) + k.gv * (v - 128),
      (y - 16) * k.y + k.bu * (u - 128),
    ];
    expect(rgb(235, 128, 128).map(Math.round)).toEqual([255, 255, 255]);
    expect(rgb(16, 128, 128).map((c) => Math.round(c) + 0)).toEqual([0, 0, 0]);
    // Blending a colour over a frame and reading it back gives the colour.
    for (const colour of [
      [255, 0, 0],
      [0, 255, 0],
      [0, 0, 255],
      [90, 200, 30],
    ]) {
      const frame = { width: 2, height: 2, data: new Uint8Array(6).fill(77) };
      const overlay = Uint8Array.from([0, 1, 2, 3].flatMap(() => [...colour, 255]));
      blend(frame, { x: 0, y: 0, width: 2, height: 2 }, overlay, matrix, 0);
      const { data } = toPicture(frame, { x: 0, y: 0, width: 2, height: 2 }, matrix, 0);
      colour.forEach((c, i) => {
        expect(Math.abs(data[i] - c)).toBeLessThanOrEqual(3);
      });
    }
  });

  it('the published numbers of BT.601 and BT.709', () => {
    expect(yuvCoefficients('bt601').rv).toBeCloseTo(1.596, 3);
    expect(yuvCoefficients('bt601').gu).toBeCloseTo(-0.392, 3);
    expect(yuvCoefficients('bt709').bu).toBeCloseTo(2.112, 3);
    expect(yuvCoefficients('bt709').gv).toBeCloseTo(-0.533, 3);
  });

  it('frames without tags are taken as players take them', () => {
    expect(matrixOf(undefined, 640, 480)).toBe('bt601');
    expect(matrixOf(undefined, 1280, 720)).toBe('bt709');
    expect(matrixOf('bt709', 64, 48)).toBe('bt709');
    expect(matrixOf('smpte170m', 1920, 1080)).toBe('bt601');
    expect(matrixOf('bt2020-ncl', 1920, 1080)).toBe('bt2020');
  });
});

describe('turning', () => {
  it.each(ROTATIONS)('%i degrees: every displayed pixel has its own stored one', (rotation) => {
    const size = { width: 6, height: 4 };
    const shown = displayed(size, rotation);
    const seen = new Set<string>();
    for (let y = 0; y < shown.height; y++)
      for (let x = 0; x < shown.width; x++) {
        const [sx, sy] = toStored(x, y, size, rotation);
        expect(sx >= 0 && sx < 6 && sy >= 0 && sy < 4).toBe(true);
        seen.add(`${sx},${sy}`);
      }
    expect(seen.size).toBe(24);
    // Clockwise: what is stored at the top left is displayed at the top right after a quarter turn.
    const corner = { 0: [0, 0], 90: [3, 0], 180: [5, 3], 270: [0, 5] }[rotation];
    expect(toStored(corner[0], corner[1], size, rotation)).toEqual([0, 0]);
  });

  it.each(ROTATIONS)('on the CPU and on the GPU, %i degrees: as the reference', async (rotation) => {
    const gpu = await sharedGpu();
    for (const [width, height] of [
      [2, 2],
      [6, 10],
      [38, 22],
      [130, 66],
    ]) {
      const frame = frameOf(width, height);
      for (const matrix of ['bt601', 'bt709'] as const) {
        const expected = yuvReference(frame.data, width, height, rotation, yuvCoefficients(matrix));
        const picture = await GpuPicture.fromFrame(gpu, frame, matrix, rotation);
        const shown = displayed(frame, rotation);
        expect([picture.width, picture.height]).toEqual([shown.width, shown.height]);
        const { buffer, size } = picture.operand.ref;
        const got = new Uint8Array(await gpu.read(buffer, 0, size));
        picture.destroy();
        const cpu = toPicture(frame, { x: 0, y: 0, ...shown }, matrix, rotation).data;
        // The last bit is f32's where a value lies at the edge between two.
        for (let i = 0; i < expected.length; i++) {
          expect(Math.abs(got[i] - expected[i])).toBeLessThanOrEqual(1);
          expect(Math.abs(cpu[i] - expected[i])).toBeLessThanOrEqual(1);
        }
        const off = got.filter((v, i) => v !== expected[i]).length;
        expect(off / got.length).toBeLessThan(0.01);
      }
    }
  });

  it('no memory stays behind on the GPU', async () => {
    const gpu = await sharedGpu();
    const frame = frameOf(64, 48);
    (await GpuPicture.fromFrame(gpu, frame, 'bt601', 0)).destroy();
    const before = { ...gpu.stats };
    for (let i = 0; i < 20; i++) (await GpuPicture.fromFrame(gpu, frame, 'bt601', 90)).destroy();
    expect({ ...gpu.stats }).toEqual(before);
  });
});

describe('the overlay', () => {
  const overlayOf = (frame: I420Frame, rotation: Rotation) => {
    const { width, height } = displayed(frame, rotation);
    const context = createCanvas(width, height).getContext('2d') as unknown as OverlayContext;
    return new Overlay(context, frame, 'bt601', rotation);
  };
  const face = { box: { x1: 20, y1: 16, x2: 60, y2: 56 }, landmarks: [[30, 30] as const] };

  it('changes the lines of a box and its points, and not a byte elsewhere', () => {
    const frame = frameOf(128, 96);
    const before = copy(frame);
    overlayOf(frame, 0).draw(frame, [face], {});
    const changed = (x: number, y: number) => frame.data[y * 128 + x] !== before.data[y * 128 + x];
    expect([changed(20, 40), changed(60, 40), changed(40, 16), changed(40, 56), changed(30, 30)]).toEqual(
      new Array(5).fill(true),
    );
    for (let y = 0; y < 96; y++)
      for (let x = 0; x < 128; x++) {
        const outside = x < 16 || x > 64 || y < 12 || y > 60;
        const within = x > 36 && x < 56 && y > 22 && y < 52;
        if (outside || within) expect(changed(x, y)).toBe(false);
      }
  });

  it('draws nothing twice and leaves nothing for the next frame', () => {
    const frame = frameOf(128, 96);
    const overlay = overlayOf(frame, 0);
    const once = copy(frame);
    overlay.draw(once, [face], {});
    const again = copy(frame);
    overlay.draw(again, [face], {});
    expect(again.data).toEqual(once.data);
    const untouched = copy(frame);
    overlay.draw(untouched, [], {});
    expect(untouched.data).toEqual(frame.data);
  });

  it('goes past the border without harm', () => {
    const frame = frameOf(64, 48);
    const beyond = {
      box: { x1: -30, y1: -20, x2: 90, y2: 70 },
      label: 'Name',
      landmarks: [[-5, 100] as const],
    };
    overlayOf(frame, 0).draw(frame, [beyond], {});
    expect(frame.data).toHaveLength(frameBytes(64, 48));
  });

  it.each(ROTATIONS)('looks the same upright whatever the stored rotation, %i degrees', (rotation) => {
    // Evenly gray, so that only the drawing shows.
    const size = displayed({ width: 128, height: 96 }, rotation);
    const frame = { ...size, data: new Uint8Array(frameBytes(128, 96)).fill(128) };
    const straight = { width: 128, height: 96, data: new Uint8Array(frameBytes(128, 96)).fill(128) };
    overlayOf(frame, rotation).draw(frame, [face], {});
    overlayOf(straight, 0).draw(straight, [face], {});
    const whole = { x: 0, y: 0, width: 128, height: 96 };
    const [a, b] = [toPicture(frame, whole, 'bt601', rotation), toPicture(straight, whole, 'bt601', 0)];
    expect(Buffer.from(a.data).equals(Buffer.from(b.data))).toBe(true);
  });
});
