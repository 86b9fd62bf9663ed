// Clips for the tests of videos, made by ffmpeg's own sources; and what ffprobe says of a file.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect } from 'vitest';

/** Why the tests of videos are skipped here; undefined where they run. */
export const withoutFfmpeg: string | undefined = (() => {
  try {
    for (const tool of ['ffmpeg', 'ffprobe']) execFileSync(tool, ['-version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'ffmpeg and ffprobe are not installed (apt-get install ffmpeg)';
  }
})();

let folder: string | undefined;

/** A folder for this test file's clips. */
export function clipFolder(): string {
  if (!folder) {
    folder = mkdtempSync(path.join(tmpdir(), 'wfr-clips-'));
    afterAll(() => rmSync(folder!, { recursive: true, force: true }));
  }
  return folder;
}

/** Runs ffmpeg with the words of `args`; the last is a file name in the clip folder. @returns its path */
export function clip(args: string, name: string): string {
  const file = path.join(clipFolder(), name);
  execFileSync('ffmpeg', ['-v', 'error', '-y', ...args.split(' '), file], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return file;
}

export interface Stream {
  codec_type: string;
  codec_name: string;
  width: number;
  height: number;
  nb_read_frames: string;
  start_time: string;
  duration?: string;
  color_space?: string;
  side_data_list?: { rotation?: number }[];
}

/** Streams with their frames counted by decoding them: a file that does not play fails here. */
export function streamsOf(file: string): { video: Stream; audio?: Stream; duration: number } {
  const args = ['-v', 'error', '-count_frames', '-show_streams', '-show_format', '-of', 'json', file];
  const { streams, format } = JSON.parse(execFileSync('ffprobe', args, { encoding: 'utf8' })) as {
    streams: Stream[];
    format: { duration: string };
  };
  return {
    video: streams.find((s) => s.codec_type === 'video')!,
    audio: streams.find((s) => s.codec_type === 'audio'),
    duration: Number(format.duration),
  };
}

export const rotationOf = (stream: Stream): number =>
  stream.side_data_list?.find((d) => d.rotation !== undefined)?.rotation ?? 0;

/** Times of a file's video frames, in seconds. */
export function frameTimes(file: string): number[] {
  const args = [
    '-v',
    'error',
    '-select_streams',
    'v:0',
    '-show_entries',
    'frame=pts_time',
    '-of',
    'csv=p=0',
    file,
  ];
  return execFileSync('ffprobe', args, { encoding: 'utf8' })
    .split(/[\n,]/)
    .filter((line) => line.trim())
    .map(Number);
}

/** Checksum of the audio packets' bytes. */
export function audioBytes(file: string): string {
  const args = ['-v', 'error', '-i', file, '-map', '0:a', '-c', 'copy', '-f', 'streamhash', '-'];
  return execFileSync('ffmpeg', args, { encoding: 'utf8' }).trim();
}

/** All frames as RGB bytes, turned the way they are shown. */
export function pixels(file: string): Buffer {
  return execFileSync('ffmpeg', ['-v', 'error', '-i', file, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'], {
    maxBuffer: 1 << 30,
  });
}

/** Expects an annotated file to have the input's size, frames, times, length, rotation and sound, as ffprobe tells. */
export function expectKept(input: string, output: string): void {
  const [a, b] = [streamsOf(input), streamsOf(output)];
  expect(b.video.nb_read_frames).toBe(a.video.nb_read_frames);
  expect([b.video.width, b.video.height]).toEqual([a.video.width, a.video.height]);
  expect(rotationOf(b.video)).toBe(rotationOf(a.video));
  const [times, kept] = [frameTimes(input), frameTimes(output)];
  const longest = Math.max(...times.slice(1).map((t, i) => t - times[i]));
  expect(Math.abs(b.duration - a.duration)).toBeLessThanOrEqual(longest + 1e-3);
  expect(kept).toHaveLength(times.length);
  // Matroska counts in milliseconds.
  kept.forEach((t, i) => {
    expect(Math.abs(t - kept[0] - (times[i] - times[0]))).toBeLessThan(0.0011);
  });
  expect(b.audio?.codec_name).toBe(a.audio?.codec_name);
  if (a.audio) expect(audioBytes(output)).toBe(audioBytes(input));
}
