/**
 * Pictures with boxes and points, in the forms that data sets come in:
 *
 *   annotations.jsonl   a JSON object a line: {file, faces: [[x, y, w, h, …, invalid]], landmarks?: [null | [x1, y1, …, x5, y5, score]]},
 *                       optionally `wider`, the picture's path in WIDER FACE
 *   *_bbx_gt.txt        WIDER FACE (Yang, Luo, Loy & Tang 2016): path, number of faces, then
 *                       x y w h blur expression illumination invalid occlusion pose a line
 *   points              one face a picture; CSV with a header (file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy)
 *                       or JSON ([{file, box: [x1, y1, x2, y2], points: [x1, y1, …]}])
 *
 * Coordinates are pixels from the top left corner; a box is x1, y1, x2, y2 with x2 = x1 + width.
 */

import type { Box } from '../../face/boxes.js';
import { iou } from '../../face/boxes.js';
import { WfrError } from '../../gpu/errors.js';

export type Point = readonly [number, number];

export interface AnnotatedFace {
  box: Box;
  /** Marked as invalid: neither a face to learn nor background. */
  ignored: boolean;
  /** Left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them. */
  points?: readonly Point[];
}

export interface AnnotatedPicture {
  /** As the list has it, relative to the list's folder. */
  file: string;
  /** File name of the original, by which held-out pictures are listed. */
  name: string;
  faces: AnnotatedFace[];
}

/** Points found by a detector count only from this score on. */
const LEAST_SCORE = 0.9;
const COLUMNS = 'file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy';
const MOST_FACES = 10_000;

const baseName = (file: string): string => file.slice(file.lastIndexOf('/') + 1);

/** @throws WfrError with the line's number where it is no annotation. */
export function parseAnnotations(text: string): AnnotatedPicture[] {
  const pictures: AnnotatedPicture[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const fail = (why: string) => new WfrError(`line ${i + 1}: ${why}`);
    let record: { file?: unknown; wider?: unknown; faces?: unknown; landmarks?: unknown };
    try {
      record = JSON.parse(line);
    } catch {
      throw fail('not JSON');
    }
    const { file, wider, faces, landmarks } = record;
    if (typeof file !== 'string' || !Array.isArray(faces) || faces.length > MOST_FACES)
      throw fail('an annotation needs a file and faces');
    pictures.push({
      file,
      name: baseName(typeof wider === 'string' ? wider : file),
      faces: faces.map((f: unknown, k) => {
        if (!numbers(f) || f.length < 4) throw fail(`face ${k + 1} is not [x, y, width, height, …]`);
        const box = fromSize(f);
        const p: unknown = Array.isArray(landmarks) ? landmarks[k] : undefined;
        const points = numbers(p) && (p[10] ?? 1) >= LEAST_SCORE ? pairs(p) : undefined;
        return { box, ignored: f[7] === 1, points: points && plausible(points, box) ? points : undefined };
      }),
    });
  }
  return pictures;
}

/** WIDER FACE's own text. @throws WfrError with the line's number where it is cut short. */
export function parseWiderText(text: string): AnnotatedPicture[] {
  const lines = text.split('\n').map((l) => l.trim());
  const pictures: AnnotatedPicture[] = [];
  for (let at = 0; at < lines.length; ) {
    const file = lines[at++];
    if (file === '') continue;
    const count = Number(lines[at++]);
    if (!Number.isInteger(count) || count < 0 || count > MOST_FACES)
      throw new WfrError(`line ${at}: the number of faces of ${file} was expected`);
    const faces: AnnotatedFace[] = [];
    // A picture without faces still has one line, of zeros.
    for (let k = 0; k < Math.max(1, count); k++, at++) {
      const f = (lines[at] ?? '').split(/\s+/).map(Number);
      if (f.length < 4 || !numbers(f)) throw new WfrError(`line ${at + 1}: a box of ${file} was expected`);
      if (k < count) faces.push({ box: fromSize(f), ignored: f[7] === 1 });
    }
    pictures.push({ file, name: baseName(file), faces });
  }
  return pictures;
}

/**
 * A list of one face a picture with five points; rows without points are left out.
 * @throws WfrError naming the line that is no such row, and where no row can be used.
 */
export function parsePoints(text: string): AnnotatedPicture[] {
  const one = (
    file: string,
    box: readonly number[],
    p: readonly number[],
    line: number,
  ): AnnotatedPicture[] => {
    if (!numbers(box) || box.length !== 4 || !numbers(p) || p.length !== 10)
      throw new WfrError(`line ${line}: a box of four and points of ten numbers were expected`);
    const face = { x1: box[0], y1: box[1], x2: box[2], y2: box[3] };
    const points = pairs(p);
    if (!plausible(points, face)) return [];
    return [{ file, name: baseName(file), faces: [{ box: face, ignored: false, points }] }];
  };
  if (text.trimStart().startsWith('[')) {
    const list = JSON.parse(text) as { file: string; box: number[]; points: number[] }[];
    return usable(list.flatMap(({ file, box, points }, i) => one(file, box, points, i + 1)));
  }
  const pictures: AnnotatedPicture[] = [];
  for (const [i, line] of text.split('\n').entries()) {
    // Further columns do no harm.
    if (i === 0 && !`${line.replaceAll(/\s/g, '')},`.startsWith(`${COLUMNS},`))
      throw new WfrError(`the first line must name the columns ${COLUMNS}`);
    const [file, ...rest] = line.trim().split(',');
    if (i === 0 || rest.length < 15 || rest[0] === '') continue;
    const n = rest.map(Number);
    if (n[4] >= LEAST_SCORE) pictures.push(...one(file, n.slice(0, 4), n.slice(5, 15), i + 1));
  }
  return usable(pictures);
}

function usable(pictures: AnnotatedPicture[]): AnnotatedPicture[] {
  if (pictures.length === 0)
    throw new WfrError(
      `no row can be used: a face a row is expected, in columns ${COLUMNS}, with a score of at least ${LEAST_SCORE} and its points in the box`,
    );
  return pictures;
}

/** Points that a face of this box can have: all near it, the mouth below the eyes when they are level. */
export function plausible(points: readonly Point[], b: Box): boolean {
  const [w, h] = [b.x2 - b.x1, b.y2 - b.y1];
  if (
    points.some(
      ([x, y]) => x < b.x1 - 0.2 * w || x > b.x2 + 0.2 * w || y < b.y1 - 0.1 * h || y > b.y2 + 0.1 * h,
    )
  )
    return false;
  const [[lx, ly], [rx, ry], , [mx, my], [nx, ny]] = points;
  // Turned so that the eyes are level, the mouth lies below them and its left corner is left of the right one.
  const [ex, ey] = [rx - lx, ry - ly];
  const down = ex * ((my + ny) / 2 - (ly + ry) / 2) - ey * ((mx + nx) / 2 - (lx + rx) / 2);
  const along = ex * (nx - mx) + ey * (ny - my);
  return down > 0 && along > 0;
}

/** The face that a box overlaps most. */
export function nearest(
  box: Box,
  faces: readonly AnnotatedFace[],
): { face?: AnnotatedFace; overlap: number } {
  let best: { face?: AnnotatedFace; overlap: number } = { overlap: 0 };
  for (const face of faces) {
    const overlap = iou(box, face.box);
    if (overlap > best.overlap) best = { face, overlap };
  }
  return best;
}

const fromSize = ([x, y, w, h]: readonly number[]): Box => ({ x1: x, y1: y, x2: x + w, y2: y + h });

const numbers = (v: unknown): v is number[] => Array.isArray(v) && v.every((n) => Number.isFinite(n));

const pairs = (p: readonly number[]): Point[] => [0, 2, 4, 6, 8].map((i) => [p[i], p[i + 1]] as const);
