/** A video file → the same with faces drawn, frame by frame through WebCodecs; sound is copied as it is. */
import {
  ALL_FORMATS,
  BlobSource,
  BufferTarget,
  CanvasSource,
  EncodedAudioPacketSource,
  EncodedPacketSink,
  getFirstEncodableVideoCodec,
  Input,
  type InputAudioTrack,
  Mp4OutputFormat,
  Output,
  QUALITY_HIGH,
  VideoSampleSink,
} from 'mediabunny';
import type { DrawnFace } from '../../src/index.js';

export const canAnnotate = (): boolean =>
  typeof VideoDecoder !== 'undefined' && typeof VideoEncoder !== 'undefined';

/**
 * @param find the faces of a frame; the bitmap is its to close.
 * @param draw draws them over the frame.
 * @param onProgress 0…1.
 * @returns an MP4 file with the same frames at the same times.
 * @throws Error when the browser cannot decode or encode the video.
 */
export async function annotateVideo(
  file: File,
  find: (frame: ImageBitmap) => Promise<DrawnFace[]>,
  draw: (context: OffscreenCanvasRenderingContext2D, faces: readonly DrawnFace[]) => void,
  onProgress: (share: number) => void,
): Promise<ArrayBuffer> {
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS });
  const track = await input.getPrimaryVideoTrack();
  if (!track) throw new Error('there is no video in the file.');
  if (!(await track.canDecode()))
    throw new Error(`this browser cannot decode ${track.codec ?? 'its codec'}.`);
  // Encoders take even sizes only.
  const width = track.displayWidth & ~1;
  const height = track.displayHeight & ~1;
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat(), target });
  const codec = await getFirstEncodableVideoCodec(output.format.getSupportedVideoCodecs(), { width, height });
  if (!codec) throw new Error(`this browser cannot encode video of ${width}×${height}.`);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d')!;
  const pictures = new CanvasSource(canvas, { codec, bitrate: QUALITY_HIGH });
  output.addVideoTrack(pictures);
  const audio = await input.getPrimaryAudioTrack();
  const isKept = audio?.codec && output.format.getSupportedAudioCodecs().includes(audio.codec);
  const sound = isKept ? new EncodedAudioPacketSource(audio.codec!) : undefined;
  if (sound) output.addAudioTrack(sound);
  await output.start();
  const end = await track.computeDuration();
  let duration = 1 / 30;
  for await (const sample of new VideoSampleSink(track).samples()) {
    sample.draw(context, 0, 0);
    // The last frame of a WebM tells no duration: it lasts as long as the one before.
    duration = sample.duration || duration;
    const { timestamp } = sample;
    sample.close();
    draw(context, await find(await createImageBitmap(canvas)));
    await pictures.add(timestamp, duration);
    onProgress(end > 0 ? Math.min(1, timestamp / end) : 0);
  }
  if (sound) await copySound(audio!, sound);
  await output.finalize();
  return target.buffer!;
}

async function copySound(track: InputAudioTrack, source: EncodedAudioPacketSource): Promise<void> {
  const decoderConfig = (await track.getDecoderConfig()) ?? undefined;
  for await (const packet of new EncodedPacketSink(track).packets())
    await source.add(packet, { decoderConfig });
}
