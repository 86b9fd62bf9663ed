import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ffmpegAdvice, ffmpegPath } from '../../media/video/ffmpeg.node.js';
import type { Finding } from './report.js';

/** Whether a video can be read and written: the version of ffmpeg. */
export async function examineFfmpeg(): Promise<Finding> {
  const name = 'ffmpeg';
  try {
    const { stdout } = await promisify(execFile)(ffmpegPath(), ['-hide_banner', '-version'], {
      timeout: 10_000,
    });
    return { name, state: 'ok', value: /ffmpeg version (\S+)/.exec(stdout)?.[1] ?? 'unknown version' };
  } catch (error) {
    const absent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return {
      name,
      state: 'note',
      value: absent
        ? 'not found: needed for videos only, pictures work without it'
        : 'found, but it does not start',
      advice: ffmpegAdvice(process.platform),
    };
  }
}

/** Whether the picture library's native part loads on this machine. */
export async function examineCanvas(): Promise<Finding> {
  const name = 'canvas';
  try {
    await import('@napi-rs/canvas');
    return { name, state: 'ok', value: 'loads: pictures can be drawn on and encoded' };
  } catch (error) {
    return {
      name,
      state: 'missing',
      value: `does not load: ${(error as Error).message.split('\n')[0]}`,
      advice:
        'Install again without --omit=optional: its native part is an optional package of each platform.',
    };
  }
}
