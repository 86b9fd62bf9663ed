import path from 'node:path';
import { encodePicture } from '../../media/annotate.node.js';
import { writeAtomically } from '../../media/files.node.js';
import type { VideoResult } from './annotate.node.js';
import type { Person } from './appearances.js';
import { timelineHtml } from './timeline.js';

const round = (value: number): number => Number(value.toFixed(3));

/** People without their portraits, times from the video's beginning. */
export function peopleToJson(people: readonly Person[], start: number): object[] {
  return people.map(({ name, known, seconds, frames, appearances }) => ({
    name,
    known,
    seconds: round(seconds),
    frames,
    appearances: appearances.map((a) => ({ start: round(a.start - start), end: round(a.end - start) })),
  }));
}

/** Writes who appears when: as JSON where the name ends in `.json`, else as an HTML page with portraits. */
export async function writeSummary(file: string, video: string, result: VideoResult): Promise<void> {
  const { people, start, seconds, frames } = result;
  if (path.extname(file).toLowerCase() === '.json') {
    const json = { video, seconds: round(seconds), frames, people: peopleToJson(people, start) };
    return writeAtomically(file, `${JSON.stringify(json, null, 2)}\n`);
  }
  const urls = new Map<string, string>();
  for (const [p, person] of people.entries()) {
    for (const [a, { portrait }] of person.appearances.entries()) {
      if (!portrait) continue;
      const bytes = await encodePicture(portrait, 'jpg');
      urls.set(`${p} ${a}`, `data:image/jpeg;base64,${Buffer.from(bytes).toString('base64')}`);
    }
  }
  const portrait = (person: Person, a: number) => urls.get(`${people.indexOf(person)} ${a}`);
  await writeAtomically(
    file,
    timelineHtml(people, { title: path.basename(video), start, seconds, portrait }),
  );
}
