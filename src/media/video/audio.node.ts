/** Sound for the result: packets copied where the container can hold them, else made fit by ffmpeg in a file beside. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FilePathSource, Input, type InputAudioTrack, MATROSKA } from 'mediabunny';
import { MediaError } from '../errors.js';
import { type Ffmpeg, lastMessage, Process } from './ffmpeg.node.js';
import type { Probe } from './probe.node.js';
import { abilities, type VideoContainer } from './write.node.js';

export interface Sound {
  tracks: InputAudioTrack[];
  /** Said to the user when the packets could not be copied as they are. */
  note?: string;
  close(): Promise<void>;
}

/** @throws MediaError when the sound has to be encoded anew and that fails. */
export async function openSound(
  file: string,
  { info, input, audio }: Probe,
  container: VideoContainer,
  ffmpeg: Ffmpeg,
): Promise<Sound> {
  if (info.audio.length === 0) return { tracks: [], close: async () => {} };
  const allowed: readonly string[] = abilities(container).audio;
  const fits = info.audio.every((a) => a.codec && allowed.includes(a.codec));
  if (input && fits) return { tracks: audio, close: async () => {} };

  // Containers that are not parsed here are rewrapped; what the target cannot hold becomes Opus or AAC.
  const target = container === 'webm' ? 'libopus' : 'aac';
  const copied = new Set(fits ? info.audio.map((a) => a.codec) : []);
  const codecs = fits ? ['-c:a', 'copy'] : ['-c:a', target, '-b:a', '160k'];
  const temporary = path.join(tmpdir(), `wfr-sound-${process.pid}-${randomBytes(4).toString('hex')}.mka`);
  const remux = new Process(
    ffmpeg.path,
    [
      '-hide_banner',
      '-nostdin',
      '-v',
      'error',
      '-copyts',
      '-i',
      file,
      '-vn',
      '-map',
      '0:a',
      ...codecs,
      '-y',
      temporary,
    ],
    ['ignore', 'ignore', 'pipe'],
  );
  if ((await remux.exited) !== 0) {
    await rm(temporary, { force: true });
    throw new MediaError(`${file}: the sound could not be carried over: ${lastMessage(remux.messages)}`);
  }
  const sound = new Input({ source: new FilePathSource(temporary), formats: [MATROSKA] });
  const names = info.audio.map((a) => a.codec ?? 'unknown').join(', ');
  return {
    tracks: await sound.getAudioTracks(),
    note:
      copied.size > 0
        ? undefined
        : `the sound (${names}) was encoded anew: ${container} cannot hold it as it is`,
    close: async () => {
      sound.dispose();
      await rm(temporary, { force: true });
    },
  };
}
