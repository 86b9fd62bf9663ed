import type { Face } from '../detector.js';

type Boxed = Pick<Face, 'box'>;

/**
 * The face that a picture of one person shows: among the faces that cover the picture's centre (among all, where
 * none does) the one with the largest area less twice the squared distance of its centre from the picture's, so
 * that a big face near the middle wins over a bigger one at the border and over small ones behind.
 * @param width of the picture in pixels, as the boxes.
 * @returns an index into `faces`, or undefined where there is none.
 */
export function mainFace(faces: readonly Boxed[], width: number, height: number): number | undefined {
  const [cx, cy] = [width / 2, height / 2];
  const covers = ({ box }: Boxed) => box.x1 <= cx && cx <= box.x2 && box.y1 <= cy && cy <= box.y2;
  const anyCovers = faces.some(covers);
  let best: number | undefined;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const [i, face] of faces.entries()) {
    if (anyCovers && !covers(face)) continue;
    const { x1, y1, x2, y2 } = face.box;
    const distance = ((x1 + x2) / 2 - cx) ** 2 + ((y1 + y2) / 2 - cy) ** 2;
    const score = (x2 - x1) * (y2 - y1) - 2 * distance;
    if (score > bestScore) [best, bestScore] = [i, score];
  }
  return best;
}
