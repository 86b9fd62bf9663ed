/**
 * Encoding by ffmpeg: raw frames in, packets out. ffmpeg is told a constant rate and writes Matroska into a pipe; the
 * packets come back numbered by their times at that rate, which gives each the true time of its frame. So variable
 * frame rates survive whatever the encoder's own clock can hold.
 */
import type { Readable } from 'node:stream';
import { type EncodedPacket, EncodedPacketSink, Input, MATROSKA, ReadableStreamSource } from 'mediabunny';
import { MediaError } from '../errors.js';
import { type Ffmpeg, lastMessage, Process } from './ffmpeg.node.js';
import type { TimedFrame, VideoInfo } from './types.js';

export type VideoCodecName = 'avc' | 'hevc' | 'vp9' | 'vp8' | 'av1';

interface Encoder {
  name: string;
  codec: VideoCodecName;
  args: (info: VideoInfo) => string[];
}

/** Bits a second for encoders without a constant-quality mode. */
const bits = ({ width, height, rate }: VideoInfo) => String(Math.round(width * height * rate * 0.12));

/** In order of preference within a codec. Hardware encoders of unknown presence are not tried unasked. */
const ENCODERS: readonly Encoder[] = [
  { name: 'libx264', codec: 'avc', args: () => ['-preset', 'veryfast', '-crf', '20'] },
  { name: 'h264_videotoolbox', codec: 'avc', args: (i) => ['-b:v', bits(i), '-allow_sw', '1'] },
  { name: 'h264_mf', codec: 'avc', args: (i) => ['-b:v', bits(i)] },
  { name: 'libopenh264', codec: 'avc', args: (i) => ['-b:v', bits(i)] },
  { name: 'libx265', codec: 'hevc', args: () => ['-preset', 'veryfast', '-crf', '23'] },
  { name: 'hevc_videotoolbox', codec: 'hevc', args: (i) => ['-b:v', bits(i), '-allow_sw', '1'] },
  {
    name: 'libvpx-vp9',
    codec: 'vp9',
    args: () => ['-deadline', 'realtime', '-cpu-used', '6', '-row-mt', '1', '-crf', '30', '-b:v', '0'],
  },
  {
    name: 'libvpx',
    codec: 'vp8',
    args: (i) => ['-deadline', 'realtime', '-cpu-used', '6', '-crf', '10', '-b:v', bits(i)],
  },
  { name: 'libsvtav1', codec: 'av1', args: () => ['-preset', '10', '-crf', '35'] },
  { name: 'libaom-av1', codec: 'av1', args: () => ['-cpu-used', '8', '-crf', '32', '-b:v', '0'] },
];

export const VIDEO_CODECS: readonly VideoCodecName[] = ['avc', 'hevc', 'vp9', 'vp8', 'av1'];

/** The first of the codecs that this ffmpeg can encode. @throws MediaError when there is none. */
export function chooseEncoder(ffmpeg: Ffmpeg, codecs: readonly VideoCodecName[]): Encoder {
  for (const codec of codecs) {
    const found = ENCODERS.find((e) => e.codec === codec && ffmpeg.encoders.has(e.name));
    if (found) return found;
  }
  const names = ENCODERS.filter((e) => codecs.includes(e.codec)).map((e) => e.name);
  throw new MediaError(
    `No encoder: this ffmpeg (${ffmpeg.version}) has none of ${names.join(', ')}. Install a full build of ffmpeg, or choose another container or --codec.`,
  );
}

/** WebCodecs' names of colour tags in ffmpeg's words. */
const FFMPEG_COLOUR: Record<string, string> = {
  'iec61966-2-1': 'iec61966-2-1',
  pq: 'smpte2084',
  hlg: 'arib-std-b67',
};

export class FfmpegEncoder {
  readonly #process: Process;
  readonly #times = new Map<number, { time: number; duration: number }>();
  readonly #rate: number;
  #next = 0;
  #failure: Error | undefined;
  readonly #reading: Promise<void>;

  /** @param onPacket gets the packets in decoding order; its promise is the back pressure. */
  constructor(
    ffmpeg: Ffmpeg,
    readonly encoder: Encoder,
    private readonly info: VideoInfo,
    onPacket: (packet: EncodedPacket, config: VideoDecoderConfig) => Promise<void>,
  ) {
    this.#rate = Math.max(1, Math.min(240, Math.round(info.rate)));
    this.#process = new Process(ffmpeg.path, this.#args(), ['pipe', 'pipe', 'pipe']);
    this.#reading = this.#read(this.#process.child.stdout!, onPacket).catch((error: Error) => {
      this.#failure ??= error;
      this.#process.stop();
    });
  }

  #args(): string[] {
    const { encoder, info } = this;
    const tags = [
      ['-color_primaries', info.colour.primaries],
      ['-color_trc', info.colour.transfer],
      ['-colorspace', info.colour.matrix],
    ].flatMap(([option, value]) => (value ? [option!, FFMPEG_COLOUR[value] ?? value] : []));
    const aspect = info.pixelAspect;
    return [
      ...['-hide_banner', '-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'yuv420p'],
      ...['-video_size', `${info.width}x${info.height}`, '-framerate', String(this.#rate), '-i', 'pipe:0'],
      ...(aspect ? ['-vf', `setsar=${aspect.num}/${aspect.den}`] : []),
      ...['-c:v', encoder.name, ...encoder.args(info), '-pix_fmt', 'yuv420p', '-color_range', 'tv', ...tags],
      ...['-f', 'matroska', '-cluster_time_limit', '1000', 'pipe:1'],
    ];
  }

  /**
   * Hands a frame to the encoder, which has copied it when this resolves.
   * @throws MediaError when the encoder has failed, or what its packets are written to.
   */
  async add(frame: TimedFrame): Promise<void> {
    if (this.#failure) throw this.#failure;
    this.#times.set(this.#next++, { time: frame.time, duration: frame.duration });
    const stdin = this.#process.child.stdin!;
    await new Promise<void>((resolve) => {
      // The callback comes when the pipe has taken all of it, or is broken.
      stdin.write(frame.data, () => resolve());
    });
    if (this.#failure) throw this.#failure;
    if (stdin.destroyed || stdin.errored) await this.#fail();
  }

  /** Waits until every packet has been handed on. */
  async finish(): Promise<void> {
    this.#process.child.stdin!.end();
    await this.#reading;
    if (this.#failure) throw this.#failure;
    if ((await this.#process.exited) !== 0) await this.#fail();
    if (this.#times.size > 0) throw new MediaError(`${this.encoder.name} lost ${this.#times.size} frames`);
  }

  /** Ends the encoder without waiting for what is in it. */
  async abort(): Promise<void> {
    await this.#process.dispose();
    await this.#reading;
  }

  async #fail(): Promise<never> {
    await this.#process.exited.catch(() => {});
    throw new MediaError(`Encoding by ${this.encoder.name} failed: ${lastMessage(this.#process.messages)}`);
  }

  async #read(
    stdout: Readable,
    onPacket: (packet: EncodedPacket, config: VideoDecoderConfig) => Promise<void>,
  ): Promise<void> {
    const source = new ReadableStreamSource(toWeb(stdout));
    const input = new Input({ source, formats: [MATROSKA] });
    try {
      const track = await input.getPrimaryVideoTrack();
      const config = await track?.getDecoderConfig();
      if (!track || !config) return;
      const { primaries, transfer, matrix } = this.info.colour;
      if (primaries || transfer || matrix)
        config.colorSpace = { primaries, transfer, matrix, fullRange: false } as VideoColorSpaceInit;
      for await (const packet of new EncodedPacketSink(track).packets()) {
        const index = Math.round(packet.timestamp * this.#rate);
        const times = this.#times.get(index);
        if (!times) throw new MediaError(`${this.encoder.name} made a packet for a frame it was not given`);
        this.#times.delete(index);
        await onPacket(packet.clone({ timestamp: times.time, duration: times.duration }), config);
      }
    } catch (error) {
      // An encoder that never began leaves an empty stream; its own message says more.
      if (error instanceof MediaError || this.#times.size < this.#next) throw error;
    } finally {
      input.dispose();
    }
  }
}

/** A web stream over a pipe that reads only as fast as it is read from. */
function toWeb(stream: Readable): ReadableStream<Uint8Array> {
  const chunks = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { value, done } = await chunks.next();
        if (done) controller.close();
        else controller.enqueue(new Uint8Array(value));
      },
      async cancel() {
        await chunks.return?.();
      },
    },
    { highWaterMark: 4 },
  );
}
