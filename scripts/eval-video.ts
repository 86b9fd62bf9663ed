// How steady names and boxes are in a video with known people: compares what `wfr annotate VIDEO --json` printed with
// where each person really is.
//
//   npx tsx scripts/eval-video.ts TRUTH.json RUN.json [RUN.json …]
//
// TRUTH.json is a list of { "name", "from", "to", "x0", "x1" }: the person's face centre lies between x0 and x1 (fractions of
// the width) in the frames from…to (inclusive, counted from 0). People whom the bank does not hold have a name of your
// choice and "stranger": true: then any `unknown N` is right as long as it stays the same.
import { readFileSync } from 'node:fs';
import path from 'node:path';

interface Truth {
  name: string;
  from: number;
  to: number;
  x0: number;
  x1: number;
  stranger?: boolean;
}
interface Face {
  box: { x1: number; y1: number; x2: number; y2: number };
  name?: string;
  status?: string;
}
interface Run {
  videos: { width: number; frames: { faces: Face[] }[] }[];
}

const [truthFile, ...files] = process.argv.slice(2);
if (!truthFile || files.length === 0) {
  console.error('usage: npx tsx scripts/eval-video.ts TRUTH.json RUN.json [RUN.json …]');
  process.exit(1);
}
const truth = JSON.parse(readFileSync(truthFile, 'utf8')) as Truth[];

for (const file of files) {
  const [video] = (JSON.parse(readFileSync(file, 'utf8')) as Run).videos;
  /** Labels of each true person, frame by frame; undefined where no face was shown. */
  const labels = new Map<string, (string | undefined)[]>();
  const strangers = new Set<string>();
  let [frames, extra] = [0, 0];
  for (const [index, { faces }] of video.frames.entries()) {
    const here = truth.filter((t) => index >= t.from && index <= t.to);
    const used = new Set<Face>();
    for (const t of here) {
      frames++;
      if (t.stranger) strangers.add(t.name);
      const face = faces.find((f) => {
        const x = (f.box.x1 + f.box.x2) / 2 / video.width;
        return !used.has(f) && x >= t.x0 && x < t.x1;
      });
      if (face) used.add(face);
      const list = labels.get(t.name) ?? [];
      labels.set(t.name, list);
      list.push(face && (face.name ?? 'unknown'));
    }
    extra += faces.length - used.size;
  }
  let [switches, gaps, missed, wrong, right] = [0, 0, 0, 0, 0];
  for (const [name, list] of labels) {
    const stranger = strangers.has(name);
    const own = stranger ? mostCommon(list) : name;
    let last: string | undefined;
    list.forEach((label, i) => {
      if (label === undefined) {
        missed++;
        if (list[i - 1] !== undefined && list.slice(i + 1, i + 6).some((l) => l !== undefined)) gaps++;
        return;
      }
      if (last !== undefined && label !== last) switches++;
      last = label;
      if (label === own) right++;
      else wrong++;
    });
  }
  console.log(
    JSON.stringify({
      run: path.basename(file),
      truth_faces: frames,
      right_label: right,
      other_label: wrong,
      not_shown: missed,
      label_switches: switches,
      box_flicker: gaps,
      boxes_elsewhere: extra,
    }),
  );
}

function mostCommon(list: readonly (string | undefined)[]): string | undefined {
  const counts = new Map<string, number>();
  for (const label of list) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
}
