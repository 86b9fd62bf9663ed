import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { WfrError } from '../../gpu/errors.js';
import { expandInputs } from '../../media/files.node.js';
import { type AnnotatedPicture, parseAnnotations, parsePoints, parseWiderText } from './annotations.js';

export interface DetectorData {
  /** Pictures with all their faces, paths complete. */
  pictures: AnnotatedPicture[];
  /** The same, held out for validation. */
  heldOut: AnnotatedPicture[];
  /** Lone faces with points. */
  listed: AnnotatedPicture[];
  /** Pictures of backgrounds. */
  negatives: string[];
}

export interface DataPlaces {
  /** Folder with annotations.jsonl, or with wider_face_train_bbx_gt.txt beside or above the pictures' folders. */
  data: string;
  /** Lists of lone faces with points; paths in them count from the list's folder. */
  points?: readonly string[];
  negatives?: string;
  /** File of names, one a line. Without it every tenth picture is held out. */
  heldOut?: string;
}

/**
 * @param note takes a line about what was found but is doubtful
 * @throws WfrError naming the file that is missing, no list, or of no use.
 */
export async function findDetectorData(
  places: DataPlaces,
  note?: (line: string) => void,
): Promise<DetectorData> {
  const all = await annotatedPictures(places.data);
  if (all.length === 0) throw new WfrError(`${places.data}: its annotations name no pictures.`);
  const names = places.heldOut ? await heldOutNames(places.heldOut, all, note) : undefined;
  const isHeldOut = (p: AnnotatedPicture, i: number) => (names ? names.has(p.name) : i % 10 === 9);
  const listed: AnnotatedPicture[] = [];
  for (const list of places.points ?? []) {
    if (!existsSync(list)) throw new WfrError(`--points ${list}: there is no such file.`);
    for (const p of await parsed(list, parsePoints))
      listed.push({ ...p, file: path.resolve(path.dirname(list), p.file) });
  }
  const negatives = places.negatives ? await backgrounds(places.negatives) : [];
  const data = {
    pictures: all.filter((p, i) => !isHeldOut(p, i)),
    heldOut: all.filter(isHeldOut),
    listed,
    negatives,
  };
  if (data.pictures.length === 0) throw new WfrError(`${places.data}: no pictures are left to train on.`);
  return data;
}

/** A wrong list would have the pictures trained on that are to be held out. */
async function heldOutNames(
  file: string,
  pictures: readonly AnnotatedPicture[],
  note?: (line: string) => void,
): Promise<Set<string>> {
  const lines = (await read(file)).split('\n').map((line) => line.trim());
  const names = new Set(lines.filter(Boolean));
  const known = new Set(pictures.map((p) => p.name));
  const strange = [...names].filter((name) => !known.has(name));
  if (strange.length === names.size)
    throw new WfrError(
      `--held-out ${file}: none of its ${names.size} names is one of the pictures in --data. Give a file name a line, without folders, as ${pictures[0].name}.`,
    );
  if (strange.length > 0)
    note?.(
      `--held-out ${file}: ${strange.length} of its ${names.size} names are of no picture in --data, as ${strange[0]}`,
    );
  return names;
}

async function backgrounds(place: string): Promise<string[]> {
  const { files, problems } = await expandInputs([place]);
  if (problems.length > 0)
    throw new WfrError(
      `--negatives ${place}: ${problems[0].reason}. Give a folder of pictures of backgrounds, or leave it out.`,
    );
  return files.map((f) => f.path);
}

async function annotatedPictures(folder: string): Promise<AnnotatedPicture[]> {
  const json = path.join(folder, 'annotations.jsonl');
  if (existsSync(json)) return placed(await parsed(json, parseAnnotations), [folder]);
  const names = existsSync(folder) ? await readdir(folder, { recursive: true }) : [];
  const text = names.find((n) => /train_bbx_gt\.txt$/.test(n)) ?? names.find((n) => /_bbx_gt\.txt$/.test(n));
  if (!text)
    throw new WfrError(
      `${folder} holds no annotations.jsonl and no *_bbx_gt.txt: give the folder of WIDER FACE or of annotations in its form.`,
    );
  const roots = [
    folder,
    ...['train', 'val'].flatMap((part) => [
      path.join(folder, `WIDER_${part}`, 'images'),
      path.join(folder, 'images'),
    ]),
  ];
  return placed(await parsed(path.join(folder, text), parseWiderText), roots);
}

/** Paths completed by the first root under which the first picture is. */
function placed(pictures: readonly AnnotatedPicture[], roots: readonly string[]): AnnotatedPicture[] {
  const root =
    roots.find((r) => pictures.length > 0 && existsSync(path.join(r, pictures[0].file))) ?? roots[0];
  return pictures.map((p) => ({ ...p, file: path.join(root, p.file) }));
}

async function parsed<T>(file: string, parse: (text: string) => T): Promise<T> {
  const text = await read(file);
  try {
    return parse(text);
  } catch (error) {
    throw new WfrError(`${file}: ${(error as Error).message}`);
  }
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new WfrError(`${file}: ${(error as Error).message}`);
  }
}
