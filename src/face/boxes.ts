/**
 * Boxes of MTCNN's cascade, in picture coordinates. The arithmetic, with its + 1 in some places and not in
 * others, is that of the public PyTorch port whose weights people use (facenet-pytorch), so that results agree
 * with it box for box.
 */
export interface Box {
  x1: number;
  y1: number;
  x2: number;
  y2: number;
}

export interface ScoredBox extends Box {
  score: number;
}

/** Box regressions dx1, dy1, dx2, dy2 as fractions of the box. */
export type Regression = readonly [number, number, number, number];

/** Intersection over union, borders not counted as pixels. */
export function iou(a: Box, b: Box): number {
  const both = intersection(a, b, 0);
  return both / (area(a, 0) + area(b, 0) - both);
}

const area = (b: Box, one: number): number => (b.x2 - b.x1 + one) * (b.y2 - b.y1 + one);

function intersection(a: Box, b: Box, one: number): number {
  const w = Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1) + one;
  const h = Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1) + one;
  return w > 0 && h > 0 ? w * h : 0;
}

/**
 * Greedy non-maximum suppression: the best box stays, boxes that overlap it by more than the threshold go.
 * @param measure `union`: intersection over union; `min`: over the smaller box, with inclusive borders.
 * @returns indices that stay, best first; equal scores keep their order.
 */
export function nonMaximumSuppression(
  boxes: readonly ScoredBox[],
  threshold: number,
  measure: 'union' | 'min' = 'union',
): number[] {
  const order = boxes.map((_, i) => i).sort((a, b) => boxes[b].score - boxes[a].score || a - b);
  const kept: number[] = [];
  const gone = new Uint8Array(boxes.length);
  for (const [rank, i] of order.entries()) {
    if (gone[i]) continue;
    kept.push(i);
    for (let r = rank + 1; r < order.length; r++) {
      const j = order[r];
      if (gone[j]) continue;
      const overlap =
        measure === 'union'
          ? iou(boxes[i], boxes[j])
          : intersection(boxes[i], boxes[j], 1) / Math.min(area(boxes[i], 1), area(boxes[j], 1));
      if (overlap > threshold) gone[j] = 1;
    }
  }
  return kept;
}

/** Overlap (intersection over union) from which a box has a vote on another. */
const VOTES_FROM = 0.7;

/**
 * The mean, weighted by score, of all boxes that overlap a box by at least 0.7, itself among them: what several windows say of
 * a face's extent is truer than what the best-scored one says (box voting, Gidaris & Komodakis 2015, section 4).
 * @param boxes with `box`, before suppression.
 */
export function votedBox(box: Box, boxes: readonly ScoredBox[]): Box {
  const voters = boxes.filter((b) => iou(b, box) >= VOTES_FROM);
  const votes = voters.reduce((sum, b) => sum + b.score, 0);
  const mean = (side: keyof Box) => voters.reduce((sum, b) => sum + b.score * b[side], 0) / votes;
  return { x1: mean('x1'), y1: mean('y1'), x2: mean('x2'), y2: mean('y2') };
}

/** Moves each side by its regression. `one` is 1 where the size counts both borders (R and O), 0 for P. */
export function calibrate(b: Box, [d1, d2, d3, d4]: Regression, one: 0 | 1): Box {
  const w = b.x2 - b.x1 + one;
  const h = b.y2 - b.y1 + one;
  return { x1: b.x1 + d1 * w, y1: b.y1 + d2 * h, x2: b.x2 + d3 * w, y2: b.y2 + d4 * h };
}

/** Whose place each of the five points takes in a mirror image: left eye and left corner of the mouth become right ones. */
export const MIRRORED_POINTS = [1, 0, 2, 4, 3] as const;

/** O-Net's points x1 … x5, y1 … y5, fractions of a box whose coordinates count from one, as points of the picture. */
export function landmarksIn(b: Box, points: ArrayLike<number>): [number, number][] {
  const w = b.x2 - b.x1 + 1;
  const h = b.y2 - b.y1 + 1;
  return [0, 1, 2, 3, 4].map((k) => [w * points[k] + b.x1 - 1, h * points[5 + k] + b.y1 - 1]);
}

/** The square of the longer side around the same centre. */
export function toSquare(b: Box): Box {
  const w = b.x2 - b.x1;
  const h = b.y2 - b.y1;
  const side = Math.max(w, h);
  const x1 = b.x1 + w / 2 - side / 2;
  const y1 = b.y1 + h / 2 - side / 2;
  return { x1, y1, x2: x1 + side, y2: y1 + side };
}

/** The box of a P-Net cell: a 12-pixel window every 2 pixels of a level that is the picture times `scale`. */
export function cellBox(x: number, y: number, scale: number): Box {
  return {
    x1: Math.floor((2 * x + 1) / scale),
    y1: Math.floor((2 * y + 1) / scale),
    x2: Math.floor((2 * x + 12) / scale),
    y2: Math.floor((2 * y + 12) / scale),
  };
}

/** Pixels [x0, x1) × [y0, y1) of a box inside the picture, or undefined where nothing is left. */
export function pixelsOf(
  b: Box,
  width: number,
  height: number,
): readonly [number, number, number, number] | undefined {
  // Coordinates count from one here, and the upper borders are inclusive.
  const x0 = Math.max(1, Math.trunc(b.x1)) - 1;
  const y0 = Math.max(1, Math.trunc(b.y1)) - 1;
  const x1 = Math.min(width, Math.trunc(b.x2));
  const y1 = Math.min(height, Math.trunc(b.y2));
  return x1 > x0 && y1 > y0 ? [x0, y0, x1, y1] : undefined;
}

/** Scales of the pyramid: 12/minFace·factor^k while the short side stays at least 12. */
export function pyramidScales(width: number, height: number, minFace: number, factor: number): number[] {
  const scales: number[] = [];
  let scale = 12 / minFace;
  for (let short = Math.min(width, height) * scale; short >= 12; short *= factor) {
    scales.push(scale);
    scale *= factor;
  }
  return scales;
}
