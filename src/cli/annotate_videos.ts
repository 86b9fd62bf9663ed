// Annotating videos from the command line: one after the other, with progress, JSON and summaries.
import path from 'node:path';
import type { VideoFace } from '../face/video/analyser.js';
import {
  annotateVideo,
  type VideoInput,
  type VideoNets,
  type VideoOptions,
  type VideoResult,
} from '../face/video/annotate.node.js';
import { peopleToJson, writeSummary } from '../face/video/summary.node.js';
import { clock } from '../face/video/timeline.js';
import { WfrError } from '../gpu/errors.js';
import { containerOf } from '../media/video/write.node.js';
import { faceToJson } from './faces.js';
import { framesProgress } from './progress.js';

export interface VideoJob {
  input: VideoInput;
  /** Shown to people. */
  name: string;
  out: string;
  /** File for who appears when. */
  summary?: string;
}

export interface VideoRun {
  rows: (string | number)[][];
  written: string[];
  failed: { path: string; reason: string }[];
}

/**
 * Works through the videos. One that fails is reported and the rest go on; an abort finishes the file in hand and ends
 * the run.
 * @param json print each video as a JSON object, its frames as they come, so that nothing has to be kept
 */
export async function runVideos(
  jobs: readonly VideoJob[],
  nets: VideoNets,
  options: Omit<VideoOptions, 'container' | 'onFrame' | 'onNote'> & { signal: AbortSignal },
  json: boolean,
): Promise<VideoRun> {
  const run: VideoRun = { rows: [], written: [], failed: [] };
  let printed = false;
  for (const job of jobs) {
    if (options.signal.aborted) break;
    const bar = framesProgress(path.basename(job.name));
    const printer: FramePrinter | undefined = json ? new FramePrinter(job, printed) : undefined;
    try {
      const result = await annotateVideo(job.input, job.out, nets, {
        ...options,
        container: containerOf(job.out) ?? 'mp4',
        portraits: job.summary !== undefined && !job.summary.toLowerCase().endsWith('.json'),
        onNote: (note) => bar.note(`${job.name}: ${note}`),
        onFrame: ({ frame, faces }, { frames, share }) => {
          printer?.frame(frame.time, faces);
          bar.update(frames, share);
        },
      });
      if (job.summary) await writeSummary(job.summary, job.name, result);
      printer?.end(result);
      run.written.push(job.out);
      run.rows.push(...rowsOf(job, result));
      if (result.interrupted) bar.note(`${job.out}: ${result.frames} frames, up to the interruption`);
    } catch (error) {
      printer?.fail();
      // A lost device or a programming error concerns every video; what a video causes is a WfrError.
      if (!(error instanceof WfrError) || error.name === 'GpuError') throw error;
      const reason = error.message.replace(`${job.name}: `, '');
      run.failed.push({ path: job.name, reason });
      bar.note(`${job.name}: ${reason}`);
    } finally {
      printed ||= printer?.printed ?? false;
      bar.stop();
    }
  }
  if (run.failed.length > 0) process.exitCode = 1;
  return run;
}

function rowsOf({ name }: VideoJob, { people, start, seconds }: VideoResult): (string | number)[][] {
  if (people.length === 0) return [[name, 'no face', '', '', clock(seconds)]];
  return people.map((person, i) => [
    i === 0 ? name : '',
    person.name,
    clock(person.seconds),
    person.appearances
      .slice(0, 4)
      .map((a) => `${clock(a.start - start)}–${clock(a.end - start)}`)
      .join(', ') + (person.appearances.length > 4 ? `, … (${person.appearances.length})` : ''),
    i === 0 ? clock(seconds) : '',
  ]);
}

export const VIDEO_COLUMNS = ['video', 'who', 'seen>', 'when', 'length>'];

/** One video of the JSON, a line a frame. */
class FramePrinter {
  #frames = 0;
  #start = 0;

  constructor(
    private readonly job: VideoJob,
    private readonly isFurther: boolean,
  ) {}

  frame(time: number, faces: readonly VideoFace[]): void {
    if (this.#frames === 0) {
      this.#start = time;
      const head = JSON.stringify({ path: this.job.name, out: this.job.out }).slice(0, -1);
      console.log(`${this.isFurther ? ',' : ''}${head},"frames":[`);
    }
    const line = JSON.stringify({
      time: Number((time - this.#start).toFixed(6)),
      faces: faces.map(({ track, seen, label, ...face }) => ({ track, seen, ...labelled(face, label) })),
    });
    console.log(`${this.#frames++ > 0 ? ',' : ''}${line}`);
  }

  end({ width, height, seconds, start, frames, people, interrupted }: VideoResult): void {
    const tail = {
      width,
      height,
      seconds,
      start,
      count: frames,
      interrupted,
      people: peopleToJson(people, start),
    };
    console.log(`],${JSON.stringify(tail).slice(1)}`);
  }

  /** Leaves whole JSON behind when the video fails half-way. */
  fail(): void {
    if (this.#frames > 0) console.log(`],"failed":true}`);
  }

  get printed(): boolean {
    return this.#frames > 0;
  }
}

/** Strangers keep their number in the JSON; elsewhere an unknown face has no name. */
function labelled(face: Omit<VideoFace, 'track' | 'seen' | 'label'>, label: VideoFace['label']): object {
  const json = faceToJson({ ...face, ...label });
  return label ? { ...json, name: label.name } : json;
}
