/** The result file: encoded video, copied sound, under a temporary name until it is whole. */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import {
  EncodedAudioPacketSource,
  type EncodedPacket,
  EncodedPacketSink,
  EncodedVideoPacketSource,
  type InputAudioTrack,
  type MetadataTags,
  MkvOutputFormat,
  MovOutputFormat,
  Mp4OutputFormat,
  Output,
  type OutputFormat,
  StreamTarget,
  type StreamTargetChunk,
  WebMOutputFormat,
} from 'mediabunny';
import { MediaError } from '../errors.js';
import type { VideoCodecName } from './encode.node.js';
import type { VideoInfo } from './types.js';

export type VideoContainer = 'mp4' | 'mov' | 'mkv' | 'webm';

/** How each container is written, and the codecs to try for it, best first. */
const CONTAINERS: Record<VideoContainer, { format: () => OutputFormat; codecs: readonly VideoCodecName[] }> =
  {
    mp4: { format: () => new Mp4OutputFormat({ fastStart: false }), codecs: ['avc', 'hevc', 'av1', 'vp9'] },
    mov: { format: () => new MovOutputFormat({ fastStart: false }), codecs: ['avc', 'hevc'] },
    mkv: { format: () => new MkvOutputFormat(), codecs: ['avc', 'hevc', 'av1', 'vp9', 'vp8'] },
    webm: { format: () => new WebMOutputFormat(), codecs: ['vp9', 'vp8', 'av1'] },
  };

export const VIDEO_CONTAINERS = Object.keys(CONTAINERS) as VideoContainer[];

/** The container that a file name asks for. */
export function containerOf(file: string): VideoContainer | undefined {
  const ending = path.extname(file).slice(1).toLowerCase();
  if (ending === 'm4v') return 'mp4';
  return VIDEO_CONTAINERS.find((c) => c === ending);
}

export const codecsOf = (container: VideoContainer): readonly VideoCodecName[] =>
  CONTAINERS[container].codecs;

/** What a container can hold, asked of its writer. */
export function abilities(container: VideoContainer) {
  const format = CONTAINERS[container].format();
  return {
    rotation: format.supportsVideoRotationMetadata,
    audio: format.getSupportedAudioCodecs(),
    video: format.getSupportedVideoCodecs(),
  };
}

interface AudioCopy {
  track: InputAudioTrack;
  source: EncodedAudioPacketSource;
  packets: AsyncGenerator<EncodedPacket>;
  next?: EncodedPacket;
}

export class VideoWriter {
  #lastEnd = 0;
  /** A process that ends at once leaves no half file behind. */
  readonly #cleanUp = () => rmSync(this.temporary, { force: true });

  private constructor(
    private readonly file: string,
    private readonly temporary: string,
    private readonly handle: FileHandle,
    private readonly output: Output,
    private readonly video: EncodedVideoPacketSource,
    private readonly audio: AudioCopy[],
  ) {
    process.once('exit', this.#cleanUp);
  }

  /** @throws MediaError when the file cannot be made. */
  static async create(
    file: string,
    container: VideoContainer,
    codec: VideoCodecName,
    info: VideoInfo,
    extras: { audio: readonly InputAudioTrack[]; tags?: MetadataTags },
  ): Promise<VideoWriter> {
    await mkdir(path.dirname(path.resolve(file)), { recursive: true });
    const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`;
    const handle = await open(temporary, 'w');
    try {
      const output = new Output({
        format: CONTAINERS[container].format(),
        target: new StreamTarget(new WritableStream({ write: (chunk) => writeAt(handle, chunk, file) }), {
          chunked: true,
          chunkSize: 1 << 20,
        }),
      });
      const video = new EncodedVideoPacketSource(codec);
      output.addVideoTrack(video, { rotation: info.rotation });
      const audio: AudioCopy[] = [];
      for (const track of extras.audio) {
        const source = new EncodedAudioPacketSource((await track.getCodec())!);
        const name = (await track.getName()) ?? undefined;
        output.addAudioTrack(source, { languageCode: await track.getLanguageCode(), name });
        audio.push({ track, source, packets: new EncodedPacketSink(track).packets() });
      }
      if (extras.tags) output.setMetadataTags(extras.tags);
      await output.start();
      return new VideoWriter(file, temporary, handle, output, video, audio);
    } catch (error) {
      await handle.close();
      await rm(temporary, { force: true });
      throw error;
    }
  }

  /** Adds a packet of video, in decoding order, and the sound up to its time. */
  async add(packet: EncodedPacket, decoderConfig: VideoDecoderConfig): Promise<void> {
    // Sound goes first, so that the writer never has to hold video back.
    await this.#copyAudio(packet.timestamp);
    this.#lastEnd = Math.max(this.#lastEnd, packet.timestamp + packet.duration);
    await this.video.add(packet, { decoderConfig });
  }

  /**
   * Completes the file and gives it its name.
   * @param all copy the rest of the sound too; otherwise it ends with the last frame
   */
  async finish(all: boolean): Promise<void> {
    await this.#copyAudio(all ? Number.POSITIVE_INFINITY : this.#lastEnd);
    for (const { source, packets } of this.audio) {
      source.close();
      await packets.return(undefined);
    }
    await this.output.finalize();
    await this.handle.close();
    await rename(this.temporary, this.file);
    process.off('exit', this.#cleanUp);
  }

  /** Removes what was written. */
  async abort(): Promise<void> {
    for (const { packets } of this.audio) await packets.return(undefined).catch(() => {});
    await this.output.cancel().catch(() => {});
    await this.handle.close().catch(() => {});
    await rm(this.temporary, { force: true });
    process.off('exit', this.#cleanUp);
  }

  async #copyAudio(until: number): Promise<void> {
    for (const copy of this.audio) {
      for (;;) {
        copy.next ??= (await copy.packets.next()).value ?? undefined;
        if (!copy.next || copy.next.timestamp > until) break;
        const decoderConfig = (await copy.track.getDecoderConfig()) ?? undefined;
        await copy.source.add(copy.next, { decoderConfig });
        copy.next = undefined;
      }
    }
  }
}

async function writeAt(
  handle: FileHandle,
  { data, position }: StreamTargetChunk,
  file: string,
): Promise<void> {
  try {
    for (let at = 0; at < data.length; ) {
      const { bytesWritten } = await handle.write(data, at, data.length - at, position + at);
      at += bytesWritten;
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      code === 'ENOSPC'
        ? 'the disk is full'
        : code === 'EFBIG'
          ? 'the file has reached the size limit'
          : message;
    throw new MediaError(`${file}: ${reason}. Nothing was left under that name.`);
  }
}
