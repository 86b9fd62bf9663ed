/** What the parts of the video path tell each other. */
import type { I420Frame, Rotation } from './i420.js';

export interface VideoInfo {
  /** Of the stored frames; both even (an odd last row or column is cut off by the decoder). */
  width: number;
  height: number;
  /** Clockwise, to be applied by whoever shows the frames. */
  rotation: Rotation;
  pixelAspect?: { num: number; den: number };
  /** Colour tags as WebCodecs names them; a field is absent where the file does not say. */
  colour: { primaries?: string; transfer?: string; matrix?: string };
  /** Seconds at which the video track ends, where known. */
  end?: number;
  /** Frames in the file, where its index tells. */
  frames?: number;
  /** Frames a second, for the encoder's rate control and the progress bar only; times come from the frames. */
  rate: number;
  audio: { codec: string | null; language: string; name?: string }[];
}

export interface TimedFrame extends I420Frame {
  /** Seconds on the file's own clock. */
  readonly time: number;
  /** Seconds until the next frame. */
  readonly duration: number;
  /** Counts from 0. */
  readonly index: number;
}

/** A stream of frames from a file or a camera. */
export interface FrameSource {
  readonly info: VideoInfo;
  /**
   * Frames in the order they are shown. The reader owns each frame until it calls `release`.
   * @throws MediaError when the stream is damaged, truncated or holds no frame.
   */
  frames(): AsyncGenerator<TimedFrame>;
  /** Gives a frame's memory back for later ones. */
  release(frame: TimedFrame): void;
  /** Stops early: `frames()` ends after what has been read already. */
  stop(): void;
}
