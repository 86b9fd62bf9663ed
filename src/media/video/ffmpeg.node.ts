/** The system's ffmpeg: whether it is there, what it can do, and what its messages mean. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { MediaError } from '../errors.js';

const run = promisify(execFile);

export interface Ffmpeg {
  path: string;
  ffprobe: string;
  version: string;
  /** Names of the encoders it was built with. */
  encoders: ReadonlySet<string>;
  /** Option that keeps every frame's time; renamed in 5.1. */
  passthrough: readonly [string, string];
}

/** The one named by `$WFR_FFMPEG`, else the one on the path. */
export const ffmpegPath = (): string => process.env.WFR_FFMPEG || 'ffmpeg';

/** How to install it, by platform. */
const INSTALL: Partial<Record<NodeJS.Platform, string>> = {
  linux: 'apt-get install ffmpeg, dnf install ffmpeg, pacman -S ffmpeg, or what your distribution calls it',
  darwin: 'brew install ffmpeg',
  win32: 'winget install ffmpeg',
};

export const ffmpegAdvice = (platform: NodeJS.Platform): string =>
  INSTALL[platform] ?? 'see https://ffmpeg.org';

let found: Promise<Ffmpeg> | undefined;

/**
 * Finds ffmpeg and what it can do, once a process.
 * @throws MediaError that tells how to install it.
 */
export function findFfmpeg(): Promise<Ffmpeg> {
  found ??= look();
  return found;
}

async function look(): Promise<Ffmpeg> {
  const path = ffmpegPath();
  try {
    const [version, encoders] = await Promise.all([
      run(path, ['-hide_banner', '-version']),
      run(path, ['-hide_banner', '-encoders'], { maxBuffer: 1 << 24 }),
    ]);
    const [, text, major, minor] = /^ffmpeg version ((?:n?(\d+)\.(\d+))?\S*)/.exec(version.stdout) ?? [];
    const old = major !== undefined && (Number(major) < 5 || (Number(major) === 5 && Number(minor) < 1));
    return {
      path,
      ffprobe: path.replace(/ffmpeg(\.exe)?$/i, 'ffprobe$1'),
      version: text ?? 'unknown',
      encoders: new Set(encoders.stdout.match(/^ [A-Z.]{6} (\S+)/gm)?.map((line) => line.slice(8)) ?? []),
      passthrough: [old ? '-vsync' : '-fps_mode', 'passthrough'],
    };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const given = process.env.WFR_FFMPEG ? ` ($WFR_FFMPEG is ${process.env.WFR_FFMPEG})` : '';
    throw new MediaError(
      code === 'ENOENT'
        ? `Videos need ffmpeg, which was not found${given}. Install it: ${ffmpegAdvice(process.platform)}.`
        : `ffmpeg${given} does not run: ${message.split('\n')[0]}`,
    );
  }
}

/** A running ffmpeg with its messages collected. */
export class Process {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  #messages = '';
  #stopped = false;

  constructor(command: string, args: readonly string[], stdio: ('pipe' | 'ignore')[]) {
    // A group of its own: Ctrl-C in the terminal must reach only wfr, which then ends ffmpeg in good order.
    this.child = spawn(command, args, { stdio, detached: process.platform !== 'win32', windowsHide: true });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#messages = (this.#messages + text).slice(-16_384);
    });
    this.exited = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code) => resolve(code));
    });
    this.exited.catch(() => {});
    // Pipes break when the process ends first; why it ended is what gets reported.
    for (const stream of this.child.stdio) stream?.on('error', () => {});
    const kill = () => this.child.kill('SIGKILL');
    process.once('exit', kill);
    this.exited.finally(() => process.off('exit', kill)).catch(() => {});
  }

  /** What it said on standard error, the last 16 KiB. */
  get messages(): string {
    return this.#messages;
  }

  get stopped(): boolean {
    return this.#stopped;
  }

  /** Ends it; what it has written already can still be read. */
  stop(): void {
    this.#stopped = true;
    this.child.kill('SIGKILL');
  }

  /** Ends it and drops what was not read: a pipe that still holds something would never close. */
  async dispose(): Promise<void> {
    this.stop();
    for (const stream of this.child.stdio) stream?.destroy();
    await this.exited.catch(() => {});
  }
}

/** ffmpeg's messages as one sentence: the last line that says something, without addresses and prefixes. */
export function lastMessage(messages: string): string {
  const lines = messages
    .split(/\r?\n/)
    .map((line) => line.replace(/^\[[^\]]*\]\s*/g, '').trim())
    .filter((line) => line && !/^(Conversion failed|Error while|Error opening output)/.test(line));
  return lines[lines.length - 1] ?? 'no reason given';
}
