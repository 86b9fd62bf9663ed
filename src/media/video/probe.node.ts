/** What a file holds: read by mediabunny where it knows the container, by ffprobe where it does not. */
import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import {
  ALL_FORMATS,
  FilePathSource,
  Input,
  type InputAudioTrack,
  type InputVideoTrack,
  IsobmffInputFormat,
  type MetadataTags,
  UnsupportedInputFormatError,
} from 'mediabunny';
import { MediaError } from '../errors.js';
import { type Ffmpeg, lastMessage } from './ffmpeg.node.js';
import type { Rotation } from './i420.js';
import type { VideoInfo } from './types.js';

export interface Probe {
  info: VideoInfo;
  /** The opened container, where mediabunny reads it; its packets can be copied. The caller disposes of it. */
  input?: Input;
  audio: InputAudioTrack[];
  tags?: MetadataTags;
}

/** @throws MediaError when the file is missing, empty, no video, or has no video stream. */
export async function probe(file: string, ffmpeg: Ffmpeg): Promise<Probe> {
  await checkFile(file);
  const input = new Input({ source: new FilePathSource(file), formats: ALL_FORMATS });
  try {
    const found = await probeContainer(file, input);
    if (found) return found;
  } catch (error) {
    if (error instanceof MediaError) {
      input.dispose();
      throw error;
    }
    // A container that mediabunny gives up on may still be one that ffmpeg reads, or explains better.
  }
  input.dispose();
  return { info: await probeByFfprobe(file, ffmpeg), audio: [] };
}

async function checkFile(file: string): Promise<void> {
  try {
    const found = await stat(file);
    if (found.isDirectory()) throw new MediaError(`${file}: is a folder`);
    if (found.size === 0) throw new MediaError(`${file}: the file is empty`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new MediaError(`${file}: no such file`);
    throw error;
  }
}

async function probeContainer(file: string, input: Input): Promise<Probe | undefined> {
  try {
    await input.getFormat();
  } catch (error) {
    if (error instanceof UnsupportedInputFormatError) return undefined;
    throw error;
  }
  const video = await input.getPrimaryVideoTrack();
  const audio = await input.getAudioTracks();
  // Nothing at all in it: cut off before its index, which ffprobe tells better.
  if (!video && audio.length === 0) return undefined;
  if (!video) throw new MediaError(noVideo(file, audio.length));
  const indexed = (await input.getFormat()) instanceof IsobmffInputFormat;
  // Only MP4 and MOV have an index of all packets; elsewhere counting would read the whole file.
  const stats = indexed ? await video.computePacketStats() : await video.computePacketStats(100);
  const info: VideoInfo = {
    width: (await video.getCodedWidth()) & ~1,
    height: (await video.getCodedHeight()) & ~1,
    rotation: await video.getRotation(),
    colour: await colourOf(video),
    end: await endOf(input, video, indexed),
    frames: indexed ? stats.packetCount : undefined,
    rate: plausible(stats.averagePacketRate),
    audio: await Promise.all(
      audio.map(async (track) => ({
        codec: await track.getCodec(),
        language: await track.getLanguageCode(),
        name: (await track.getName()) ?? undefined,
      })),
    ),
  };
  const aspect = await video.getPixelAspectRatio();
  if (aspect.num !== aspect.den) info.pixelAspect = aspect;
  const tags = await input.getMetadataTags().catch(() => undefined);
  return { info, input, audio, tags };
}

const noVideo = (file: string, audio: number): string =>
  `${file}: no video stream in it${audio > 0 ? ', only sound' : ''}`;

async function colourOf(video: InputVideoTrack): Promise<VideoInfo['colour']> {
  const { primaries, transfer, matrix } = await video.getColorSpace();
  return {
    ...(primaries && { primaries }),
    ...(transfer && { transfer }),
    ...(matrix && matrix !== 'rgb' && { matrix }),
  };
}

async function endOf(input: Input, video: InputVideoTrack, indexed: boolean): Promise<number | undefined> {
  if (indexed) return video.computeDuration();
  const [end] = [await input.getDurationFromMetadata([video])];
  return end ?? undefined;
}

/** Rates of broken or still files would mislead the encoder. */
const plausible = (rate: number): number => (rate >= 1 && rate <= 1000 ? rate : 25);

interface FfprobeStream {
  codec_type: string;
  codec_name?: string;
  width?: number;
  height?: number;
  avg_frame_rate?: string;
  r_frame_rate?: string;
  duration?: string;
  nb_frames?: string;
  sample_aspect_ratio?: string;
  color_space?: string;
  color_primaries?: string;
  color_transfer?: string;
  side_data_list?: { rotation?: number }[];
  tags?: { language?: string; title?: string };
  disposition?: { attached_pic?: number };
}

async function probeByFfprobe(file: string, { ffprobe }: Ffmpeg): Promise<VideoInfo> {
  const args = ['-v', 'error', '-show_streams', '-show_format', '-of', 'json', file];
  let text: string;
  try {
    text = (await promisify(execFile)(ffprobe, args, { maxBuffer: 1 << 24 })).stdout;
  } catch (error) {
    const { code, stderr = '' } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === 'ENOENT')
      throw new MediaError(`${file}: to read this container, ffprobe is needed beside ffmpeg`);
    throw new MediaError(`${file}: ${explain(stderr) ?? lastMessage(stderr).replace(`${file}: `, '')}`);
  }
  const { streams = [], format } = JSON.parse(text) as {
    streams?: FfprobeStream[];
    format?: { duration?: string; start_time?: string };
  };
  const video = streams.find((s) => s.codec_type === 'video' && !s.disposition?.attached_pic);
  const audio = streams.filter((s) => s.codec_type === 'audio');
  if (!video?.width || !video.height) throw new MediaError(noVideo(file, audio.length));
  const turn = video.side_data_list?.find((d) => d.rotation !== undefined)?.rotation ?? 0;
  const rotation = ((((Math.round(-turn / 90) * 90) % 360) + 360) % 360) as Rotation;
  const [num, den] = fraction(video.sample_aspect_ratio, ':');
  const colour = (value: string | undefined) => (value && value !== 'unknown' ? value : undefined);
  const end = Number(video.duration ?? format?.duration) + Number(format?.start_time ?? 0);
  return {
    width: video.width & ~1,
    height: video.height & ~1,
    rotation,
    pixelAspect: num > 0 && den > 0 && num !== den ? { num, den } : undefined,
    colour: {
      primaries: colour(video.color_primaries),
      transfer: colour(video.color_transfer),
      matrix: colour(video.color_space),
    },
    end: Number.isFinite(end) ? end : undefined,
    frames: Number(video.nb_frames) || undefined,
    rate: plausible(ratio(video.avg_frame_rate) || ratio(video.r_frame_rate)),
    audio: audio.map((s) => ({ codec: s.codec_name ?? null, language: s.tags?.language ?? 'und' })),
  };
}

function explain(messages: string): string | undefined {
  if (/moov atom not found/.test(messages))
    return 'truncated, or no video at all: its index (moov) is missing';
  if (/Invalid data found/.test(messages)) return 'not a video, or one that is damaged at its beginning';
  return undefined;
}

const fraction = (text: string | undefined, separator: string): [number, number] => {
  const [a, b] = (text ?? '').split(separator).map(Number);
  return [a || 0, b || 0];
};

const ratio = (text: string | undefined): number => {
  const [a, b] = fraction(text, '/');
  return b > 0 ? a / b : 0;
};
