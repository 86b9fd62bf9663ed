/** Cameras through ffmpeg's own capture devices. */
import { MediaError } from '../errors.js';
import type { VideoInfo } from './types.js';

export interface CameraOptions {
  /** Stop after so many seconds; else when told to. */
  seconds?: number;
}

/**
 * @param device what the platform calls it: `/dev/video0` on Linux (the default), a number or name on macOS (default
 *   0), a name on Windows; `lavfi:GRAPH` takes ffmpeg's synthetic sources instead, for trying things out.
 */
export function cameraInput(
  device: string | undefined,
  { seconds }: CameraOptions = {},
  platform: NodeJS.Platform = process.platform,
): { name: string; args: string[]; info: VideoInfo } {
  const limit = seconds === undefined ? [] : ['-t', String(seconds)];
  // The true size and rate come with the first frame.
  const info: VideoInfo = { width: 2, height: 2, rotation: 0, colour: {}, rate: 30, audio: [] };
  if (seconds !== undefined) info.end = seconds;
  const synthetic = device?.startsWith('lavfi:') ? device.slice(6) : undefined;
  const [name, args] =
    synthetic !== undefined
      ? [synthetic, ['-re', '-f', 'lavfi', '-i', synthetic]]
      : captureArgs(device, platform);
  return { name: `camera ${name}`, args: [...limit, ...args], info };
}

function captureArgs(device: string | undefined, platform: NodeJS.Platform): [string, string[]] {
  // Late frames are dropped by the device, not queued without end.
  if (platform === 'linux') {
    const path = device ?? '/dev/video0';
    return [path, ['-f', 'v4l2', '-i', path]];
  }
  if (platform === 'darwin') {
    const index = device ?? '0';
    return [index, ['-f', 'avfoundation', '-framerate', '30', '-i', `${index}:none`]];
  }
  if (platform === 'win32') {
    if (!device)
      throw new MediaError(
        'Name the camera: --camera "Integrated Camera". `ffmpeg -list_devices true -f dshow -i dummy` lists them.',
      );
    return [device, ['-f', 'dshow', '-rtbufsize', '100M', '-i', `video=${device}`]];
  }
  throw new MediaError(`Cameras are not supported on ${platform}.`);
}
