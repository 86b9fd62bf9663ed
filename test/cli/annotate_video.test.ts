// `wfr annotate` on videos, from arguments to printed JSON, files and exit status.
import { spawn } from 'node:child_process';
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { projectFolder } from '../../src/weights/load.node.js';
import { clip, streamsOf, withoutFfmpeg } from '../media/clips.js';
import { complained, filesBelow, inDir, inTemporaryFolder, printed, put, wfr } from './helpers.js';

beforeEach((ctx) => {
  if (withoutFfmpeg) ctx.skip(withoutFfmpeg);
});
inTemporaryFolder();

/** A still of soft blobs, in which the random detector finds the same faces in every frame. */
async function still(frames: number, name: string): Promise<string> {
  await put('still.png', 120, 100);
  const file = clip(
    `-loop 1 -framerate 10 -i ${inDir('still.png')} -frames:v ${frames} -pix_fmt yuv420p -c:v libx264 -preset ultrafast`,
    name,
  );
  copyFileSync(file, inDir(name));
  return inDir(name);
}

const TONE = '-f lavfi -i sine=frequency=440:duration=0.5 -c:a aac';
const report = () => JSON.parse(printed.join('\n'));

describe('wfr annotate with videos', () => {
  it('prints every frame and person as JSON; bad files are told and the rest goes on', async () => {
    const good = await still(12, 'good.mp4');
    const empty = inDir('empty.mp4');
    writeFileSync(empty, '');
    const sound = clip(TONE, 'sound.mp4');
    // Smaller than any face that is looked for.
    const cut = clip('-f lavfi -i testsrc2=size=64x48:rate=25:duration=20 -c:v libx264', 'cut.mkv');
    truncateSync(cut, Math.floor(readFileSync(cut).length * 0.6));
    await wfr(
      ...['annotate', good, empty, sound, cut, '--out', inDir('out'), '--every', '10', '--min-face', '80'],
      ...['--json', '--summary'],
    );
    expect(process.exitCode).toBe(1);
    const { videos, pictures, failed } = report();
    expect(pictures).toEqual([]);
    expect(failed.map((f: { path: string }) => f.path)).toEqual([empty, sound, cut]);
    expect(failed.map((f: { reason: string }) => f.reason)).toEqual([
      'the file is empty',
      'no video stream in it, only sound',
      expect.stringContaining('truncated'),
    ]);
    expect(filesBelow(inDir('out'))).toEqual(['good.html', 'good.mp4']);

    const [video, broken] = videos;
    expect(videos).toHaveLength(2);
    expect(broken).toMatchObject({ path: cut, failed: true });
    expect(video).toMatchObject({ path: good, out: inDir('out', 'good.mp4'), width: 120, height: 100 });
    expect(video).toMatchObject({ count: 12, start: 0, interrupted: false });
    expect(video.seconds).toBeCloseTo(1.2, 6);
    expect(video.frames.map((f: { time: number }) => f.time)).toEqual(
      Array.from({ length: 12 }, (_, i) => i / 10),
    );
    const found = video.frames.map((f: { faces: object[] }) => f.faces);
    expect(found[0].length).toBeGreaterThan(0);
    for (const [i, faces] of found.entries())
      for (const face of faces) {
        expect(face).toMatchObject({
          box: {
            x1: expect.any(Number),
            y1: expect.any(Number),
            x2: expect.any(Number),
            y2: expect.any(Number),
          },
          score: expect.any(Number),
          track: expect.any(Number),
          seen: [0, 10, 11].includes(i),
          name: expect.stringMatching(/^unknown \d+$/),
          status: 'unknown',
        });
        expect(face.landmarks).toHaveLength(5);
      }
    expect(video.people[0]).toMatchObject({
      name: expect.stringMatching(/^unknown \d+$/),
      known: false,
      frames: 12,
      seconds: 1.2,
      appearances: [{ start: 0, end: 1.2 }],
    });
    const page = readFileSync(inDir('out', 'good.html'), 'utf8');
    for (const { name } of video.people) expect(page).toContain(name);
    expect(page).toContain('data:image/jpeg;base64,');
  });

  it('without --json prints who is seen when; a summary that ends in .json is JSON', async () => {
    const file = await still(6, 'plain.mp4');
    await wfr(
      ...['annotate', file, '--out', inDir('named.mkv'), '--every', '10', '--min-face', '80'],
      ...['--summary', inDir('who', 'plain.json')],
    );
    expect(process.exitCode ?? 0).toBe(0);
    expect(printed.join('\n')).toMatch(/plain\.mp4.*unknown 1.*0:00\.6/);
    expect(printed.at(-1)).toBe(`written to ${inDir('named.mkv')}`);
    expect(streamsOf(inDir('named.mkv')).video.nb_read_frames).toBe('6');
    const summary = JSON.parse(readFileSync(inDir('who', 'plain.json'), 'utf8'));
    expect(summary).toMatchObject({ video: file, seconds: 0.6, frames: 6 });
    expect(summary.people[0]).toMatchObject({ name: 'unknown 1', appearances: [{ start: 0, end: 0.6 }] });
  });

  it('refuses what cannot be written, before it looks at a frame', async () => {
    const file = await still(2, 'short.mp4');
    writeFileSync(inDir('taken'), '');
    for (const [args, message] of [
      [['--out', inDir('taken', 'a.mp4')], /taken.a\.mp4 cannot be written: ENOTDIR.*elsewhere/],
      [['--out', inDir('a.mp4'), '--summary', inDir('taken', 'a.html')], /a\.html cannot be written/],
      [['--out', inDir('a.mp4'), '--summary', file], /a summary is written as \.html or \.json/],
      [['--out', inDir('a.webm'), '--codec', 'avc'], /a \.webm file cannot hold it\. Choose vp9/],
      [['--out', inDir('a.png')], /videos are written as mp4, mov, mkv, webm/],
      [['--out', file], /choose another --out/],
    ] as const) {
      complained.length = 0;
      process.exitCode = undefined;
      await wfr('annotate', file, ...args);
      expect(process.exitCode).toBe(1);
      expect(complained.join('')).toMatch(message);
    }
    copyFileSync(file, inDir('other.mp4'));
    await wfr('annotate', file, inDir('other.mp4'), '--out', inDir('out'), '--summary', inDir('one.html'));
    expect(complained.join('')).toMatch(/one\.html is one file, but 2 videos were given/);
    expect(filesBelow(inDir('.'))).toEqual(['other.mp4', 'short.mp4', 'still.png', 'taken']);
  });
});

describe('Ctrl-C', () => {
  it('finishes a playable file of the frames done, and whole JSON', async () => {
    const file = await still(600, 'long.mp4');
    vi.spyOn(console, 'log').mockImplementation((text) => {
      // The first lines open the list and the video; then there is one a frame.
      if (printed.push(String(text)) === 40) process.emit('SIGINT');
    });
    await wfr(
      ...['annotate', file, '--out', inDir('out'), '--every', '20', '--min-face', '80', '--json'],
      ...['--summary', inDir('who.json')],
    );
    expect(process.exitCode).toBe(130);
    const [video] = report().videos;
    expect(video.interrupted).toBe(true);
    expect(video.count).toBe(video.frames.length);
    expect(video.count).toBeGreaterThan(37);
    expect(video.count).toBeLessThan(300);
    expect(filesBelow(inDir('out'))).toEqual(['long.mp4']);
    expect(streamsOf(inDir('out', 'long.mp4')).video.nb_read_frames).toBe(String(video.count));
    expect(JSON.parse(readFileSync(inDir('who.json'), 'utf8')).frames).toBe(video.count);
  });

  it.skipIf(process.platform === 'win32')(
    'in a terminal, which sends it to ffmpeg too: a camera ends well',
    async () => {
      const out = inDir('camera.mp4');
      const script = `import { run } from './src/cli/main.ts'; await run(process.argv.slice(1));`;
      const args = [
        'annotate',
        '--camera',
        'lavfi:testsrc2=size=96x72:rate=10',
        '--min-face',
        '60',
        '--json',
      ];
      const child = spawn(
        process.execPath,
        [
          ...['--import', 'tsx', '--input-type=module', '-e', script, '--', ...args],
          ...['--out', out, '--weights', projectFolder()],
        ],
        // A process group of its own, as a shell gives to what it runs.
        { detached: true, stdio: ['ignore', 'pipe', 'ignore'] },
      );
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (more: string) => {
        const before = text.split('\n').length;
        text += more;
        if (before <= 8 && text.split('\n').length > 8) process.kill(-child.pid!, 'SIGINT');
      });
      expect(await new Promise((resolve) => child.once('close', resolve))).toBe(130);
      const [video] = JSON.parse(text).videos;
      expect(video).toMatchObject({ path: expect.stringContaining('camera'), interrupted: true });
      expect(streamsOf(out).video.nb_read_frames).toBe(String(video.count));
      expect(filesBelow(path.dirname(out))).toEqual(['camera.mp4']);
    },
  );
});
