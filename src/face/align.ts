/**
 * Similarity transforms (rotation, one scale, translation, no reflection) by least squares, after Umeyama 1991,
 * "Least-squares estimation of transformation parameters between two point patterns".
 */
export type Points = readonly (readonly [number, number])[];

/** [x', y'] = [[a, b, c], [d, e, f]]·(x, y, 1). */
export type Affine = readonly [number, number, number, number, number, number];

/**
 * Where eyes, nose and mouth corners lie in an aligned face of 112×112 pixels: the template that ArcFace's data
 * sets and the public recognisers share.
 */
export const TEMPLATE_112: Points = [
  [38.2946, 51.6963],
  [73.5318, 51.5014],
  [56.0252, 71.7366],
  [41.5493, 92.3655],
  [70.7299, 92.2041],
];

/**
 * The template for another size: scaled by the height, centred along the width (112×96 cuts 8 pixels off each side).
 * Coordinates are of pixel centres, so half a pixel is added before scaling and taken off after it: a picture aligned at
 * 112 and averaged down to 56 lies as one aligned at 56.
 */
export function templateFor(height: number, width: number): Points {
  const scale = height / 112;
  const shift = (width - 112 * scale) / 2;
  const scaled = (v: number) => (v + 0.5) * scale - 0.5;
  if (scale === 1) return TEMPLATE_112.map(([x, y]) => [x + shift, y] as const);
  return TEMPLATE_112.map(([x, y]) => [scaled(x) + shift, scaled(y)] as const);
}

/**
 * The similarity that takes `from` to `to` with the least squared distance. In the plane it has a closed form: with
 * centred points p, q, the rotation and scale are Σ(p·q, p×q)/Σ|p|².
 */
export function similarity(from: Points, to: Points): Affine {
  const centre = (points: Points) =>
    points.reduce((s, [x, y]) => [s[0] + x / points.length, s[1] + y / points.length], [0, 0]);
  const [px, py] = centre(from);
  const [qx, qy] = centre(to);
  let dot = 0;
  let cross = 0;
  let square = 0;
  for (const [i, [x, y]] of from.entries()) {
    const [u, v, s, t] = [x - px, y - py, to[i][0] - qx, to[i][1] - qy];
    dot += u * s + v * t;
    cross += u * t - v * s;
    square += u * u + v * v;
  }
  const a = square > 0 ? dot / square : 1;
  const b = square > 0 ? cross / square : 0;
  return [a, -b, qx - a * px + b * py, b, a, qy - b * px - a * py];
}

/** The inverse of an affine map. */
export function invert([a, b, c, d, e, f]: Affine): Affine {
  const det = a * e - b * d;
  return [e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det];
}
