import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { annotateVideo, type VideoOptions } from '../../../src/face/video/annotate.node.js';
import type { FindFaces } from '../../../src/face/video/finder.js';
import { cameraInput } from '../../../src/media/video/camera.node.js';
import { displayed } from '../../../src/media/video/i420.js';
import { containerOf } from '../../../src/media/video/write.node.js';
import {
  clip,
  clipFolder,
  expectKept,
  frameTimes,
  pixels,
  rotationOf,
  streamsOf,
  withoutFfmpeg,
} from '../../media/clips.js';

beforeEach((ctx) => {
  if (withoutFfmpeg) ctx.skip(withoutFfmpeg);
});

/** A face in the upper left quarter of every frame as it is looked at. */
const oneFace: FindFaces = async (frame, { rotation }) => {
  const { width, height } = displayed(frame, rotation);
  const box = { x1: width * 0.1, y1: height * 0.1, x2: width * 0.4, y2: height * 0.4 };
  const landmarks = [0.3, 0.7, 0.5, 0.35, 0.65].map(
    (x, i) => [box.x1 + x * width * 0.3, box.y1 + [0.4, 0.4, 0.6, 0.8, 0.8][i] * height * 0.3] as const,
  );
  return [{ box, score: 0.99, landmarks, embedding: Float32Array.of(1, 0) }];
};
const noFace: FindFaces = async () => [];

async function annotate(file: string, out: string, find = oneFace, options: Partial<VideoOptions> = {}) {
  const target = path.join(clipFolder(), out);
  const notes: string[] = [];
  const result = await annotateVideo(
    file,
    target,
    { find, threshold: 0.4 },
    { container: containerOf(out)!, onNote: (n) => notes.push(n), ...options },
  );
  return { result, notes, target };
}

/** Nothing under the final name, and no temporary file either. */
function expectNothingLeft(out: string): void {
  expect(readdirSync(clipFolder()).filter((f) => f.startsWith(out))).toEqual([]);
}

const SMALL = '-f lavfi -i testsrc2=size=160x120:rate=25:duration=1.2';
const TONE = '-f lavfi -i sine=frequency=440:duration=1.2';

describe('what a video keeps', () => {
  it('size, frames, times, length and sound; the drawing shows only where faces are', async () => {
    const file = clip(`${SMALL} ${TONE} -c:v libx264 -qp 0 -c:a aac -shortest`, 'sound.mp4');
    const { result, target } = await annotate(file, 'sound-out.mp4');
    expectKept(file, target);
    expect(result).toMatchObject({ frames: 30, width: 160, height: 120, interrupted: false });
    expect(result.people).toHaveLength(1);
    expect(result.people[0]).toMatchObject({ name: 'unknown 1', frames: 30 });
    const [before, after] = [pixels(file), pixels(target)];
    const change = (x0: number, y0: number, w: number, h: number) => {
      let sum = 0;
      for (let y = y0; y < y0 + h; y++)
        for (let x = x0 * 3; x < (x0 + w) * 3; x++) {
          const at = 15 * 160 * 120 * 3 + y * 160 * 3 + x;
          sum += Math.abs(before[at] - after[at]);
        }
      return sum / (w * h * 3);
    };
    // The box's left side, and the half of the picture without a face.
    expect(change(15, 20, 2, 20)).toBeGreaterThan(25);
    expect(change(90, 60, 70, 60)).toBeLessThan(5);
  });

  it('a variable frame rate', async () => {
    const select = "select='not(eq(mod(n,5),2)+eq(mod(n,7),3))'";
    const file = clip(`${SMALL} -vf ${select} -vsync vfr -c:v libx264`, 'vfr.mp4');
    const steps = new Set(frameTimes(file).map((t, i, all) => Math.round(1000 * (t - (all[i - 1] ?? -1)))));
    expect(steps.size).toBeGreaterThan(2);
    expectKept(file, (await annotate(file, 'vfr-out.mp4')).target);
    expectKept(file, (await annotate(file, 'vfr-out.mkv')).target);
  });

  it.each([90, 180, 270])("a phone's rotation of %i degrees, boxes upright", async (degrees) => {
    const straight = clip(`${SMALL} -c:v libx264 -qp 0`, 'straight.mp4');
    const file = clip(`-i ${straight} -c copy -metadata:s:v:0 rotate=${degrees}`, `turned-${degrees}.mp4`);
    expect(rotationOf(streamsOf(file).video)).not.toBe(0);
    const { result, target } = await annotate(file, `turned-${degrees}-out.mp4`);
    expectKept(file, target);
    const size = { width: result.width, height: result.height };
    expect(size).toEqual(degrees === 180 ? { width: 160, height: 120 } : { width: 120, height: 160 });
    // The player's view: the line of the box lies where the finder put it, in the upper left quarter.
    const [before, after] = [pixels(file), pixels(target)];
    const at = (x: number, y: number) => (15 * size.width * size.height + y * size.width + x) * 3;
    const changed = (x: number, y: number) =>
      [0, 1, 2].reduce((sum, c) => sum + Math.abs(before[at(x, y) + c] - after[at(x, y) + c]), 0);
    const [x, y] = [Math.round(size.width * 0.1), Math.round(size.height * 0.25)];
    const line = Math.max(changed(x, y), changed(x - 1, y), changed(x + 1, y));
    expect(line).toBeGreaterThan(40);
    expect(changed(size.width - 20, size.height - 30)).toBeLessThan(40);
  });

  it('all that a phone writes at once: QuickTime, a turned picture, uneven times, sound', async () => {
    const uneven = "-vf select='not(eq(mod(n,5),2))' -vsync vfr";
    const straight = clip(`${SMALL} ${TONE} ${uneven} -c:v libx264 -c:a aac -shortest`, 'phone-straight.mov');
    const file = clip(`-i ${straight} -c copy -metadata:s:v:0 rotate=90`, 'phone.mov');
    expectKept(file, (await annotate(file, 'phone-out.mov')).target);
  });

  it('what WebM cannot hold is said: sound becomes Opus, turned frames are stored upright', async () => {
    const made = clip(`${SMALL} ${TONE} -c:v libx264 -c:a aac -shortest`, 'made.mp4');
    const file = clip(`-i ${made} -c copy -metadata:s:v:0 rotate=90`, 'to-webm.mp4');
    const { target, notes } = await annotate(file, 'out.webm');
    expect(notes.join()).toMatch(/sound \(aac\) was encoded anew/);
    const { video, audio, duration } = streamsOf(target);
    expect(audio?.codec_name).toBe('opus');
    expect(['vp9', 'vp8', 'av1']).toContain(video.codec_name);
    const upright = rotationOf(video) === 0 ? [120, 160] : [160, 120];
    expect([video.width, video.height]).toEqual(upright);
    expect(Number(video.nb_read_frames)).toBe(30);
    expect(Math.abs(duration - streamsOf(file).duration)).toBeLessThan(0.05);
  });

  it('colour tags and odd sizes cut to even', async () => {
    const tags = '-color_primaries bt709 -color_trc bt709 -colorspace bt709';
    const file = clip(
      `-f lavfi -i testsrc2=size=99x75:rate=10:duration=1 -pix_fmt yuv444p ${tags} -c:v libx264`,
      'odd.mkv',
    );
    const { target } = await annotate(file, 'odd-out.mp4');
    const { video } = streamsOf(target);
    expect(video).toMatchObject({ width: 98, height: 74, color_space: 'bt709', nb_read_frames: '10' });
  });

  it('AVI, which is read by ffmpeg alone, sound included', async () => {
    const file = clip(`${SMALL} ${TONE} -c:v mpeg4 -q:v 2 -c:a libmp3lame -shortest`, 'old.avi');
    const { target } = await annotate(file, 'old-out.mp4');
    const [a, b] = [streamsOf(file), streamsOf(target)];
    expect(b.video.nb_read_frames).toBe(a.video.nb_read_frames);
    expect(b.audio?.codec_name).toBe('mp3');
    expect(Math.abs(b.duration - a.duration)).toBeLessThan(0.1);
  });

  it('frames without a face: the pixels the decoder gave', async () => {
    const file = clip(`${SMALL} -c:v libx264`, 'empty.mp4');
    const { result, target } = await annotate(file, 'empty-out.mp4', noFace);
    expectKept(file, target);
    expect(result.people).toEqual([]);
    const [before, after] = [pixels(file), pixels(target)];
    let sum = 0;
    for (let i = 0; i < before.length; i++) sum += Math.abs(before[i] - after[i]);
    expect(sum / before.length).toBeLessThan(4);
  });
});

describe('what goes wrong', () => {
  const refused = async (file: string, out: string, message: RegExp) => {
    await expect(annotate(file, out)).rejects.toThrow(message);
    expectNothingLeft(out);
  };

  it('no file, no bytes, no video, no picture in it', async () => {
    await refused(path.join(clipFolder(), 'nowhere.mp4'), 'none.mp4', /nowhere\.mp4: no such file/);
    const empty = path.join(clipFolder(), 'empty-file.mp4');
    writeFileSync(empty, '');
    await refused(empty, 'none.mp4', /empty-file\.mp4: the file is empty/);
    const text = path.join(clipFolder(), 'text.mp4');
    writeFileSync(text, 'this is no video, whatever its name says. '.repeat(50));
    await refused(text, 'none.mp4', /text\.mp4: .*no video at all/);
    const sound = clip(`${TONE} -c:a aac`, 'only-sound.m4a');
    await refused(sound, 'none.mp4', /no video stream in it, only sound/);
  });

  it.each([
    ['mp4', '-movflags +faststart'],
    ['mp4', ''],
    ['mkv', ''],
  ])('a truncated %s (%s)', async (ending, flags) => {
    const noisy = '-f lavfi -i testsrc2=size=320x240:rate=25:duration=3,noise=alls=40:allf=t';
    const file = clip(`${noisy} -c:v libx264 ${flags}`.trim(), `cut-${flags ? 'fast' : 'slow'}.${ending}`);
    truncateSync(file, Math.floor(readFileSync(file).length * 0.6));
    await refused(file, `cut-out-${ending}.mp4`, /truncated/);
  });

  it('an encoder that this ffmpeg does not have, and an ffmpeg that is not there', () => {
    const script = `
      import { chooseEncoder } from './src/media/video/encode.node.ts';
      import { findFfmpeg } from './src/media/video/ffmpeg.node.ts';
      try { chooseEncoder({ version: '7.0-small', encoders: new Set(['mpeg4']) }, ['avc', 'hevc']); }
      catch (error) { console.log(error.message); }
      try { await findFfmpeg(); } catch (error) { console.log(error.message); }`;
    const output = execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      encoding: 'utf8',
      env: { ...process.env, WFR_FFMPEG: '/nowhere/ffmpeg' },
    });
    expect(output).toMatch(/No encoder: this ffmpeg \(7\.0-small\) has none of libx264/);
    expect(output).toMatch(/ffmpeg, which was not found \(\$WFR_FFMPEG is \/nowhere\/ffmpeg\)\. Install it/);
  });

  it.skipIf(process.platform === 'win32')('a disk that takes no more', async () => {
    const noisy = '-f lavfi -i testsrc2=size=640x480:rate=25:duration=2,noise=alls=60:allf=t';
    const file = clip(`${noisy} -c:v libx264`, 'large.mp4');
    const script = `
      import { annotateVideo } from './src/face/video/annotate.node.ts';
      await annotateVideo(${JSON.stringify(file)}, ${JSON.stringify(path.join(clipFolder(), 'full.mp4'))},
        { find: async () => [], threshold: 0 }, { container: 'mp4' }).catch((error) => console.log(error.message));`;
    // 200 KiB a file, and the signal that would end the process ignored: writes then fail as on a full disk.
    const shell = `trap '' XFSZ; ulimit -f 200; exec "$@"`;
    const node = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', script];
    const output = execFileSync('bash', ['-c', shell, 'bash', ...node], { encoding: 'utf8' });
    expect(output).toMatch(/full\.mp4: the file has reached the size limit\. Nothing was left/);
    expectNothingLeft('full.mp4');
  });

  it('a finder that fails', async () => {
    const file = clip(`${SMALL} -c:v libx264`, 'plain.mp4');
    const broken: FindFaces = async () => {
      throw new Error('device lost');
    };
    await expect(annotate(file, 'broken.mp4', broken)).rejects.toThrow(/device lost/);
    expectNothingLeft('broken.mp4');
  });
});

describe('stopping', () => {
  it('finishes a playable file of what was done', async () => {
    const file = clip(
      `-f lavfi -i testsrc2=size=160x120:rate=25:duration=20 ${TONE} -c:v libx264 -c:a aac`,
      'long.mp4',
    );
    const controller = new AbortController();
    const { result, target } = await annotate(file, 'stopped.mp4', oneFace, {
      signal: controller.signal,
      onFrame: ({ frame }) => {
        if (frame.index === 60) controller.abort();
      },
    });
    expect(result.interrupted).toBe(true);
    expect(result.frames).toBeGreaterThan(60);
    expect(result.frames).toBeLessThan(500);
    expect(Number(streamsOf(target).video.nb_read_frames)).toBe(result.frames);
  });

  it('leaves nothing when it was stopped before the first frame', async () => {
    const file = clip(`${SMALL} -c:v libx264`, 'before.mp4');
    const signal = AbortSignal.abort();
    await expect(annotate(file, 'never.mp4', oneFace, { signal })).rejects.toThrow(/abort/i);
    expectNothingLeft('never.mp4');
  });
});

describe('cameras', () => {
  it('a synthetic one is recorded for a while', async () => {
    const input = cameraInput('lavfi:testsrc2=size=160x120:rate=20', { seconds: 1 });
    const out = path.join(clipFolder(), 'camera.mp4');
    const result = await annotateVideo(input, out, { find: oneFace, threshold: 0.4 }, { container: 'mp4' });
    const { video, duration } = streamsOf(out);
    expect(Number(video.nb_read_frames)).toBe(result.frames);
    expect(result).toMatchObject({ frames: 20, width: 160, height: 120 });
    expect(duration).toBeCloseTo(1, 1);
  });

  it('each platform has its own device, and one that is not there says so', async () => {
    expect(cameraInput(undefined, {}, 'linux').args).toEqual(['-f', 'v4l2', '-i', '/dev/video0']);
    expect(cameraInput(undefined, {}, 'darwin').args).toContain('avfoundation');
    expect(cameraInput('Cam', {}, 'win32').args).toContain('video=Cam');
    expect(() => cameraInput(undefined, {}, 'win32')).toThrow(/Name the camera/);
    expect(() => cameraInput(undefined, {}, 'aix')).toThrow(/not supported on aix/);
    const missing = cameraInput('/dev/no-such-camera', {}, 'linux');
    const out = path.join(clipFolder(), 'no-camera.mp4');
    await expect(
      annotateVideo(missing, out, { find: noFace, threshold: 0 }, { container: 'mp4' }),
    ).rejects.toThrow(/camera \/dev\/no-such-camera: .*No such file/);
    expect(existsSync(out)).toBe(false);
  });
});

describe('a process that ends', () => {
  it.skipIf(process.platform === 'win32')('takes its temporary file and its ffmpegs along', async () => {
    const file = clip(
      '-f lavfi -i testsrc2=size=160x120:rate=25:duration=60 -c:v libx264 -preset ultrafast',
      'minute.mp4',
    );
    const out = path.join(clipFolder(), 'killed.mp4');
    const script = `
      import { annotateVideo } from './src/face/video/annotate.node.ts';
      const find = async () => { await new Promise((r) => setTimeout(r, 50)); return []; };
      await annotateVideo(${JSON.stringify(file)}, ${JSON.stringify(out)}, { find, threshold: 0 }, { container: 'mp4',
        onFrame: ({ frame }) => { if (frame.index === 20) process.exit(3); } });`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      stdio: 'ignore',
    });
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(3);
    expectNothingLeft('killed.mp4');
  });
});
