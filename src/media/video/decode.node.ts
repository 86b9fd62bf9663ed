/**
 * Decoding by ffmpeg: raw frames through one pipe, their times through another.
 *
 * The frames come as YUV4MPEG2, whose header tells their size, so that cameras and containers that no one here
 * parses work alike. Times are those of the decoder, printed by its `metadata` filter as each frame passes: a list of
 * packets from the container would not say which of them an edit list or a damaged stream leaves out.
 */
import type { Readable } from 'node:stream';
import { MediaError } from '../errors.js';
import { type Ffmpeg, lastMessage, Process } from './ffmpeg.node.js';
import { frameBytes } from './i420.js';
import type { FrameSource, TimedFrame, VideoInfo } from './types.js';

export interface DecodeInput {
  /** For messages. */
  name: string;
  /** ffmpeg's arguments up to and including `-i INPUT`. */
  args: readonly string[];
  /** Turn the frames upright instead of leaving that to the rotation tag. */
  turn?: boolean;
  /** A file must not end early; a camera ends when it is told to. */
  live?: boolean;
}

/** Messages of ffmpeg's demuxers about a file whose end is missing. */
const TRUNCATED = /partial file|ended prematurely|Truncat|moov atom not found|unexpected end|end of file/i;
const DAMAGED = /error while decoding|Invalid NAL|corrupt|concealing|non-existing PPS|Invalid data/i;

export class FfmpegSource implements FrameSource {
  #process: Process | undefined;
  readonly #free: Uint8Array[] = [];
  /** Whether the decoder complained about frames and went on. */
  damaged = false;

  constructor(
    private readonly ffmpeg: Ffmpeg,
    private readonly input: DecodeInput,
    readonly info: VideoInfo,
  ) {}

  release({ data }: TimedFrame): void {
    // Few are ever in flight; whatever is beyond that the collector may have.
    if (this.#free.length < 8) this.#free.push(data);
  }

  stop(): void {
    this.#process?.stop();
  }

  async *frames(): AsyncGenerator<TimedFrame> {
    const decoder = new Process(this.ffmpeg.path, this.#args(), ['ignore', 'pipe', 'pipe', 'pipe']);
    this.#process = decoder;
    const times = readTimes(decoder.child.stdio[3] as Readable);
    let count = 0;
    let previous: { data: Uint8Array; time: number } | undefined;
    let lastDuration = 1 / this.info.rate;
    const timed = (frame: { data: Uint8Array; time: number }, duration: number): TimedFrame => {
      const { width, height } = this.info;
      return { width, height, ...frame, duration, index: count++ };
    };
    try {
      for await (const data of this.#pictures(decoder.child.stdout!)) {
        const { value: time, done } = await times.next();
        if (done) break;
        // A clock that stands still or runs backwards would make an unplayable file.
        const later = previous && time <= previous.time ? previous.time + 1e-4 : time;
        if (previous) {
          lastDuration = later - previous.time;
          yield timed(previous, lastDuration);
        }
        previous = { data, time: later };
      }
      const status = decoder.stopped ? 0 : await decoder.exited;
      if (!decoder.stopped) this.#check(status, decoder.messages, count + (previous ? 1 : 0));
      if (previous) {
        const rest = (this.info.end ?? Number.NaN) - previous.time;
        // The container's end settles how long the last frame stays, where it makes sense.
        yield timed(previous, rest > 0 && rest < 10 * lastDuration + 1 ? rest : lastDuration);
      }
    } finally {
      await decoder.dispose();
    }
  }

  #args(): string[] {
    const { input, ffmpeg } = this;
    const stamp = 'metadata=mode=add:key=t:value=1,metadata=mode=print:file=pipe\\\\:3:direct=1';
    return [
      ...['-hide_banner', '-nostdin', '-v', 'error'],
      ...(input.turn ? [] : ['-noautorotate']),
      ...(input.live ? [] : ['-copyts']),
      ...input.args,
      ...['-map', '0:V:0', '-an', '-sn', '-dn'],
      '-vf',
      `crop=trunc(iw/2)*2:trunc(ih/2)*2:0:0,scale=out_range=tv,format=yuv420p,settb=AVTB,${stamp}`,
      ...ffmpeg.passthrough,
      ...['-enc_time_base', '-1', '-pix_fmt', 'yuv420p', '-f', 'yuv4mpegpipe', 'pipe:1'],
    ];
  }

  #check(status: number | null, messages: string, frames: number): void {
    const { name, live } = this.input;
    if (live) {
      if (frames === 0) throw new MediaError(`${name}: ${lastMessage(messages)}`);
      return;
    }
    if (TRUNCATED.test(messages))
      throw new MediaError(`${name}: truncated or damaged after ${frames} frames (${lastMessage(messages)})`);
    if (status !== 0) throw new MediaError(`${name}: decoding failed: ${lastMessage(messages)}`);
    if (frames === 0)
      throw new MediaError(`${name}: not one frame could be decoded: ${lastMessage(messages)}`);
    const declared = this.info.frames;
    // An edit list may hide a few frames; half of them missing is a broken file.
    if (declared !== undefined && frames < declared / 2)
      throw new MediaError(`${name}: truncated: ${frames} of ${declared} frames could be read`);
    this.damaged = DAMAGED.test(messages);
  }

  /** Cuts the stream into frames. */
  async *#pictures(stream: Readable): AsyncGenerator<Uint8Array> {
    let header: Uint8Array<ArrayBufferLike> | undefined = new Uint8Array(0);
    let size = 0;
    let frame: Uint8Array | undefined;
    let filled = 0;
    /** Bytes of `FRAME…\n` before each frame still to be skipped: up to and including the line's end. */
    let inMarker = true;
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      let at = 0;
      if (header) {
        header = Buffer.concat([header, chunk]);
        const end = header.indexOf(10);
        if (end < 0) continue;
        size = this.#adopt(Buffer.from(header.subarray(0, end)).toString('latin1'));
        at = chunk.length - (header.length - end - 1);
        header = undefined;
      }
      while (at < chunk.length) {
        if (inMarker) {
          const end = chunk.indexOf(10, at);
          if (end < 0) break;
          at = end + 1;
          inMarker = false;
        }
        frame ??= this.#free.pop() ?? new Uint8Array(size);
        const part = chunk.subarray(at, at + size - filled);
        frame.set(part, filled);
        filled += part.length;
        at += part.length;
        if (filled < size) break;
        yield frame;
        frame = undefined;
        filled = 0;
        inMarker = true;
      }
    }
  }

  /** Takes the size from the stream's own header: a camera or a turned frame has no other. */
  #adopt(line: string): number {
    const [width, height] = [/ W(\d+)/, / H(\d+)/].map((field) => Number(field.exec(line)?.[1]));
    if (!line.startsWith('YUV4MPEG2') || !(width > 0 && height > 0))
      throw new MediaError(`${this.input.name}: ffmpeg sent no frames`);
    const rate = /F(\d+):(\d+)/.exec(line);
    if (this.input.live && rate && Number(rate[2]) > 0) this.info.rate = Number(rate[1]) / Number(rate[2]);
    this.info.width = width;
    this.info.height = height;
    return frameBytes(width, height);
  }
}

/** Times in seconds from lines like `frame:12   pts:500000  pts_time:0.5` (the clock ticks in microseconds). */
async function* readTimes(stream: Readable): AsyncGenerator<number> {
  let rest = '';
  for await (const chunk of stream.setEncoding('utf8') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const pts = /^frame:\s*\d+\s+pts:\s*(-?\d+|NOPTS)/.exec(line)?.[1];
      if (pts !== undefined) yield pts === 'NOPTS' ? 0 : Number(pts) / 1e6;
    }
  }
}
