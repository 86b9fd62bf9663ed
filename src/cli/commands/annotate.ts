import path from 'node:path';
import { type Command, Option } from 'commander';
import type { Facebank } from '../../face/facebank.js';
import { loadBank } from '../../face/facebank.node.js';
import type { VideoNets } from '../../face/video/annotate.node.js';
import { GpuFinder } from '../../face/video/finder.js';
import { WfrError } from '../../gpu/errors.js';
import { OUTPUT_FORMATS, type OutputFormat } from '../../media/annotate.node.js';
import {
  expandInputs,
  type Input,
  isPictureName,
  isVideoName,
  requireWritable,
} from '../../media/files.node.js';
import { fontsFor } from '../../media/fonts.node.js';
import { cameraInput } from '../../media/video/camera.node.js';
import { VIDEO_CODECS, type VideoCodecName } from '../../media/video/encode.node.js';
import { abilities, codecsOf, containerOf } from '../../media/video/write.node.js';
import { annotatePictures, type PictureFlags, printPictures } from '../annotate_pictures.js';
import { annotateTargets } from '../annotate_targets.js';
import { runVideos, VIDEO_COLUMNS, type VideoJob, type VideoRun } from '../annotate_videos.js';
import { interruptible } from '../interrupt.js';
import {
  examples,
  type GpuFlags,
  gpuOptions,
  integerIn,
  type JsonFlags,
  jsonOption,
  numberIn,
  type PrecisionFlags,
  precisionOption,
  type WeightsFlags,
  weightsOption,
} from '../options.js';
import { progress } from '../progress.js';
import { type Session, withSession } from '../session.js';
import { table } from '../table.js';

interface Flags extends GpuFlags, JsonFlags, PictureFlags, PrecisionFlags, WeightsFlags {
  bank?: string;
  format?: OutputFormat;
  net?: string;
  every: number;
  track: boolean;
  codec?: VideoCodecName;
  summary?: string | true;
  camera?: string | true;
  seconds?: number;
}

export function define(command: Command): void {
  gpuOptions(precisionOption(weightsOption(jsonOption(command))))
    .argument('[inputs...]', 'pictures and videos: files, folders (with their subfolders) or patterns')
    .option('-b, --bank <dir>', 'known people: a folder of pictures for each, named after them')
    .option(
      '-o, --out <path>',
      'folder for the results, or a file name for a single input (default: wfr-out)',
    )
    .addOption(
      new Option('--format <f>', 'format of pictures (default: as the picture, else jpg)').choices([
        ...OUTPUT_FORMATS,
      ]),
    )
    .option('--min-face <px>', 'smallest face to look for, in pixels', numberIn(12, 100_000), 50)
    .option(
      '--threshold <s>',
      "similarity from which a face is named (default: the weights' own)",
      numberIn(-1, 1),
    )
    .addOption(
      new Option('--rule <r>', "how a person's several pictures count")
        .choices(['mean', 'max', 'centroid'])
        .default('mean'),
    )
    .option('--no-landmarks', 'draw boxes and names only')
    .option('--net <name>', 'recogniser to prefer where several weights are found')
    .option('--crops <dir>', 'also write every face of the pictures as a picture of its own')
    .option('--font <file>', 'font for the names (ttf, otf or woff2)')
    .option('--jobs <n>', 'pictures decoded ahead', integerIn(1, 64), 2);
  command
    .optionsGroup('Videos:')
    .option(
      '--every <n>',
      'look for faces in every nth frame, follow them between; 1 is exact',
      integerIn(1, 1000),
      5,
    )
    .option('--no-track', 'take every frame for itself: exact, but names flicker')
    .option('--summary [file]', 'write who appears when: .html with portraits (default) or .json')
    .addOption(
      new Option(
        '--codec <c>',
        'video codec (default: the first of its container that ffmpeg can encode)',
      ).choices([...VIDEO_CODECS]),
    )
    .option('--camera [device]', 'record from a camera until Ctrl-C instead of reading files')
    .option('--seconds <n>', 'stop the camera after so many seconds', numberIn(0.1, 1e6))
    .action(annotate);
  examples(command, [
    ['wfr annotate group.jpg --bank people/', 'writes wfr-out/group.jpg with boxes and names'],
    ['wfr annotate holiday/ --bank people/ --out named/', 'a folder, its structure kept'],
    ['wfr annotate group.jpg --out faces.png --no-landmarks', 'one picture to a name of your choice'],
    ['wfr annotate "*.jpg" --json > faces.json', 'boxes, points, names and similarities too'],
    ['wfr annotate clip.mov --bank people/ --summary', 'a video, and who appears in it when'],
    ['wfr annotate clip.mp4 --out clip.webm --every 1', 'every frame looked at, as WebM'],
    ['wfr annotate --camera --out me.mp4', 'the camera, until Ctrl-C'],
  ]);
}

async function annotate(args: string[], flags: Flags): Promise<void> {
  // `--summary clip.mp4` takes the clip for the name of the page: nothing may be written over it.
  if (typeof flags.summary === 'string' && !/\.(html?|json)$/i.test(flags.summary))
    throw new WfrError(
      `--summary ${flags.summary}: a summary is written as .html or .json. To have it beside the video, put --summary last.`,
    );
  if (args.length === 0 && !flags.camera) throw new WfrError('Name pictures or videos, or give --camera.');
  if (args.length > 0 && flags.camera) throw new WfrError('Give files or --camera, not both.');
  await withSession(flags, (session) =>
    interruptible(async (signal) => {
      if (flags.font) fontsFor([], flags.font); // A font that cannot be read is told before the long part.
      const isMedia = (name: string) => isPictureName(name) || isVideoName(name);
      const inputs = flags.camera
        ? { files: [], problems: [] }
        : await expandInputs(args, isMedia, 'picture or video');
      const out = flags.out ?? 'wfr-out';
      const target = flags.camera ? () => out : annotateTargets(inputs.files, out, flags.format);
      const videos = inputs.files.filter((f) => isVideoName(f.path));
      const pictures = { ...inputs, files: inputs.files.filter((f) => !isVideoName(f.path)) };
      const jobs = flags.camera ? [cameraJob(flags)] : videoJobs(videos, target, flags);
      for (const { out, summary } of jobs) {
        const container = containerOf(out);
        if (flags.codec && container && !abilities(container).video.includes(flags.codec))
          throw new WfrError(
            `--codec ${flags.codec}: a .${container} file cannot hold it. Choose ${codecsOf(container).join(', ')}, or another container by --out.`,
          );
        await requireWritable(out);
        if (summary) await requireWritable(summary);
      }
      const bank = flags.bank ? await openBank(session, flags.bank, signal) : undefined;
      if (jobs.length > 0 && flags.json) console.log('{"videos":[');
      const run =
        jobs.length > 0
          ? await runVideos(
              jobs,
              await videoNets(session, bank, flags),
              { ...flags, every: flags.track ? flags.every : 1, signal },
              flags.json ?? false,
            )
          : undefined;
      // Where there is nothing at all, that is for the pictures to say.
      const done =
        pictures.files.length > 0 || !run
          ? await annotatePictures(session, pictures, target, bank, flags, signal)
          : undefined;
      const problems = done ? [] : inputs.problems;
      for (const { path: file, reason } of problems) console.error(`${file}: ${reason}`);
      if (problems.length > 0) process.exitCode = 1;
      if (flags.json) {
        const failed = [...(run?.failed ?? []), ...(done?.run.failed ?? []), ...problems];
        const rest = JSON.stringify({ pictures: done?.results ?? [], failed }, null, 2);
        console.log(run ? `],${rest.slice(1)}` : rest);
      } else {
        if (run) printVideos(run);
        if (done) printPictures(done, flags);
      }
      signal.throwIfAborted();
    }),
  );
}

function videoJobs(videos: readonly Input[], target: (input: Input) => string, flags: Flags): VideoJob[] {
  const named = typeof flags.summary === 'string' ? flags.summary : undefined;
  if (named && videos.length > 1)
    throw new WfrError(
      `--summary ${named} is one file, but ${videos.length} videos were given: leave the name out.`,
    );
  return videos.map((input) => {
    const out = target(input);
    const beside = path.join(path.dirname(out), `${path.parse(out).name}.html`);
    return {
      input: input.path,
      name: input.path,
      out,
      summary: flags.summary ? (named ?? beside) : undefined,
    };
  });
}

function cameraJob(flags: Flags): VideoJob {
  const input = cameraInput(flags.camera === true ? undefined : flags.camera, { seconds: flags.seconds });
  const out =
    flags.out && path.extname(flags.out) ? flags.out : path.join(flags.out ?? 'wfr-out', 'camera.mp4');
  const beside = path.join(path.dirname(out), `${path.parse(out).name}.html`);
  return {
    input,
    name: input.name,
    out,
    summary: flags.summary === true ? beside : flags.summary,
  };
}

/** Videos are named by embeddings even without a bank: they keep people apart. Where there are no weights for it, boxes do. */
async function videoNets(session: Session, bank: Facebank | undefined, flags: Flags): Promise<VideoNets> {
  const gpu = await session.gpu();
  try {
    const { detector, embedder, threshold } = await session.recognizer();
    const { find } = new GpuFinder(gpu, detector, embedder, flags);
    return { find, bank, threshold: flags.threshold ?? threshold };
  } catch (error) {
    if (bank || !(error instanceof WfrError) || error.name === 'GpuError') throw error;
    const detector = await session.detector();
    console.error(`People are not told apart: ${error.message}`);
    return { find: new GpuFinder(gpu, detector, undefined, flags).find, threshold: flags.threshold ?? 0 };
  }
}

function printVideos({ rows, written }: VideoRun): void {
  if (rows.length > 0) console.log(table(VIDEO_COLUMNS, rows));
  for (const file of written) console.log(`written to ${file}`);
}

async function openBank(session: Session, folder: string, signal: AbortSignal): Promise<Facebank> {
  let bar: ReturnType<typeof progress> | undefined;
  try {
    const { bank, pictures } = await loadBank(folder, () => session.recognizer(), {
      weightsHash: await session.weightsHash(),
      signal,
      onPicture: (_, total, picture) => {
        bar ??= progress(total, 'bank pictures');
        bar.step(picture.picture);
      },
    });
    for (const { picture, problem } of pictures)
      if (problem) console.error(`${path.join(folder, picture)}: ${problem}`);
    if (bank.names.length === 0) throw new WfrError(`${folder}: no picture of the bank shows a face.`);
    return bank;
  } finally {
    bar?.stop();
  }
}
