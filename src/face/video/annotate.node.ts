/** A video file or camera → the same video with boxes and names: decode → find → track → name → draw → encode. */
import { type Canvas, createCanvas } from '@napi-rs/canvas';
import type { DrawnFace } from '../../media/draw.js';
import { fontsFor } from '../../media/fonts.node.js';
import { ahead } from '../../media/video/ahead.js';
import { openSound, type Sound } from '../../media/video/audio.node.js';
import { FfmpegSource } from '../../media/video/decode.node.js';
import { chooseEncoder, FfmpegEncoder, type VideoCodecName } from '../../media/video/encode.node.js';
import { findFfmpeg } from '../../media/video/ffmpeg.node.js';
import { displayed, matrixOf } from '../../media/video/i420.js';
import { Overlay, type OverlayContext } from '../../media/video/overlay.js';
import { type Probe, probe } from '../../media/video/probe.node.js';
import type { TimedFrame, VideoInfo } from '../../media/video/types.js';
import { abilities, codecsOf, type VideoContainer, VideoWriter } from '../../media/video/write.node.js';
import type { Facebank } from '../facebank.js';
import type { MatchRule } from '../match.js';
import { type AnalysedFrame, Analyser, type VideoFace } from './analyser.js';
import { Appearances, type Person } from './appearances.js';
import type { FindFaces, FrameView } from './finder.js';

export interface VideoNets {
  find: FindFaces;
  bank?: Facebank;
  /** Similarity from which two faces are one person's. */
  threshold: number;
}

export interface VideoOptions {
  container: VideoContainer;
  codec?: VideoCodecName;
  every?: number;
  track?: boolean;
  rule?: MatchRule;
  landmarks?: boolean;
  font?: string;
  portraits?: boolean;
  /** An abort finishes a playable file of what is done. */
  signal?: AbortSignal;
  onFrame?: (frame: AnalysedFrame, progress: VideoProgress) => void;
  onNote?: (note: string) => void;
}

export interface VideoProgress {
  /** Frames shown so far. */
  frames: number;
  /** Of the whole, 0…1, where its length is known. */
  share?: number;
}

export interface VideoResult {
  info: VideoInfo;
  /** Of the frames as they are looked at. */
  width: number;
  height: number;
  frames: number;
  /** Seconds from the first frame's beginning to the last one's end. */
  seconds: number;
  /** First frame's time on the file's clock. */
  start: number;
  encoder: string;
  people: Person[];
  interrupted: boolean;
  /** Milliseconds the loop waited for each stage; stages overlap, so they may sum to less or more than the whole. */
  waited: { frames: number; draw: number; encode: number; total: number };
}

/** Where frames come from: a file's path, or a camera. */
export type VideoInput = string | { name: string; args: readonly string[]; info: VideoInfo };

/**
 * Annotates a video. Memory does not depend on its length. The file gets its name when it is whole.
 * @throws MediaError for what is wrong with the input, the output or ffmpeg; nothing is left behind then.
 */
export async function annotateVideo(
  input: VideoInput,
  out: string,
  nets: VideoNets,
  options: VideoOptions,
): Promise<VideoResult> {
  const ffmpeg = await findFfmpeg();
  const { container, signal } = options;
  const encoder = chooseEncoder(ffmpeg, options.codec ? [options.codec] : codecsOf(container));
  const live = typeof input !== 'string';
  const found: Probe = live ? { info: input.info, audio: [] } : await probe(input, ffmpeg);
  // Where the container cannot say how to turn the frames, they are turned.
  const turn = found.info.rotation !== 0 && !abilities(container).rotation;
  const info: VideoInfo = turn
    ? { ...found.info, ...displayed(found.info, found.info.rotation), rotation: 0 }
    : found.info;
  const source = new FfmpegSource(
    ffmpeg,
    live ? { ...input, live } : { name: input, args: ['-i', input], turn },
    info,
  );
  const stop = () => source.stop();
  let sound: Sound | undefined;
  let writer: VideoWriter | undefined;
  let encoding: FfmpegEncoder | undefined;
  try {
    signal?.throwIfAborted();
    signal?.addEventListener('abort', stop);
    sound = live ? undefined : await openSound(input, found, container, ffmpeg);
    if (sound?.note) options.onNote?.(sound.note);
    const result = await pipeline(source, nets, options, async (frame) => {
      // Made with the first frame: only then is the true size of a camera's or a turned picture known.
      if (!encoding) {
        writer = await VideoWriter.create(out, container, encoder.codec, info, {
          audio: sound?.tracks ?? [],
          tags: found.tags,
        });
        const { add } = writer;
        encoding = new FfmpegEncoder(ffmpeg, encoder, info, add.bind(writer));
      }
      await encoding.add(frame);
    });
    if (!encoding || !writer) {
      signal?.throwIfAborted();
      throw new Error('no frame reached the encoder');
    }
    await encoding.finish();
    await writer.finish(!result.interrupted);
    if (source.damaged)
      options.onNote?.('some frames were damaged; the decoder hid that as well as it could');
    return { ...result, encoder: encoder.name };
  } catch (error) {
    source.stop();
    await encoding?.abort();
    await writer?.abort();
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
    await sound?.close();
    found.input?.dispose();
  }
}

/** Everything between decoder and encoder. */
async function pipeline(
  source: FfmpegSource,
  nets: VideoNets,
  options: VideoOptions,
  encode: (frame: TimedFrame) => Promise<void>,
): Promise<Omit<VideoResult, 'encoder'>> {
  const { info } = source;
  const waited = { frames: 0, draw: 0, encode: 0, total: 0 };
  const appearances = new Appearances();
  // A camera's size is known with its first frame only.
  const view = (): FrameView => ({
    matrix: matrixOf(info.colour.matrix, info.width, info.height),
    rotation: info.rotation,
  });
  const { threshold, bank } = nets;
  const { rule, every, track, portraits } = options;
  const analyser = new Analyser((frame) => nets.find(frame, view()), bank, view, {
    threshold,
    rule,
    every,
    track,
    portraits,
  });
  let overlay: Overlay | undefined;
  let first: number | undefined;
  let end = 0;
  const began = performance.now();
  let mark = began;
  const lap = (stage: 'frames' | 'draw' | 'encode') => {
    const now = performance.now();
    waited[stage] += now - mark;
    mark = now;
  };
  const frames = ahead(analyser.analyse(ahead(source.frames(), 3)), 2);
  for await (const analysed of frames) {
    lap('frames');
    const { frame, faces } = analysed;
    first ??= frame.time;
    end = frame.time + frame.duration;
    if (faces.length > 0) {
      overlay ??= new Overlay(contextFor(info), info, view().matrix, info.rotation);
      const drawn = faces.map(toDrawn);
      const fonts = fontsFor(
        drawn.map((f) => f.label ?? ''),
        options.font,
      );
      overlay.draw(frame, drawn, { landmarks: options.landmarks, fonts });
    }
    appearances.add(analysed);
    options.onFrame?.(analysed, progressOf(appearances.frames, frame, first, info));
    lap('draw');
    await encode(frame);
    source.release(frame);
    lap('encode');
  }
  waited.total = performance.now() - began;
  return {
    info,
    ...displayed(info, info.rotation),
    frames: appearances.frames,
    seconds: end - (first ?? 0),
    start: first ?? 0,
    people: appearances.people(),
    interrupted: options.signal?.aborted ?? false,
    waited,
  };
}

function contextFor(info: VideoInfo): OverlayContext {
  const { width, height } = displayed(info, info.rotation);
  const canvas: Canvas = createCanvas(width, height);
  const context = canvas.getContext('2d');
  // Noto's variable files begin at their thinnest.
  context.fontVariationSettings = '"wght" 500';
  return context as unknown as OverlayContext;
}

function toDrawn({ box, landmarks, label }: VideoFace): DrawnFace {
  if (!label) return { box, landmarks };
  // A similarity that changes from frame to frame would flicker as a name does; it is in the JSON.
  return { box, landmarks, label: label.name, status: label.status };
}

function progressOf(frames: number, frame: TimedFrame, first: number, info: VideoInfo): VideoProgress {
  const share =
    info.frames !== undefined
      ? (frame.index + 1) / info.frames
      : info.end !== undefined && info.end > first
        ? (frame.time + frame.duration - first) / (info.end - first)
        : undefined;
  return share === undefined ? { frames } : { frames, share: Math.min(1, Math.max(0, share)) };
}
