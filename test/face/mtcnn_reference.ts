/**
 * The whole MTCNN cascade in plain TypeScript, written from the published description and for nothing but being
 * obviously right: f64, one picture element at a time, no batches, no tiles, all pairs in every suppression. It
 * shares no code with src/face.
 */
import type { Picture } from '../../src/media/picture.js';

type State = ReadonlyMap<string, { shape: readonly number[]; data: ArrayLike<number> }>;
/** [channels][height][width], flat. */
interface Map3 {
  c: number;
  h: number;
  w: number;
  v: Float64Array;
}
export interface ReferenceFace {
  box: number[];
  score: number;
  landmarks: number[][];
}

const map3 = (c: number, h: number, w: number): Map3 => ({ c, h, w, v: new Float64Array(c * h * w) });

/** Mean of the pixels whose cells touch the output cell, (v − 127.5)/128. */
function cut(p: Picture, x0: number, y0: number, x1: number, y1: number, h: number, w: number): Map3 {
  const out = map3(3, h, w);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < h; i++) {
      for (let j = 0; j < w; j++) {
        const top = y0 + Math.floor((i * (y1 - y0)) / h);
        const bottom = y0 + Math.ceil(((i + 1) * (y1 - y0)) / h);
        const left = x0 + Math.floor((j * (x1 - x0)) / w);
        const right = x0 + Math.ceil(((j + 1) * (x1 - x0)) / w);
        let sum = 0;
        for (let y = top; y < bottom; y++)
          for (let x = left; x < right; x++) sum += p.data[(y * p.width + x) * 4 + c];
        out.v[(c * h + i) * w + j] = (sum / ((bottom - top) * (right - left)) - 127.5) / 128;
      }
    }
  }
  return out;
}

function conv(x: Map3, state: State, name: string): Map3 {
  const { shape, data } = state.get(`${name}.weight`)!;
  const bias = state.get(`${name}.bias`)!.data;
  const [o, , k] = shape;
  const y = map3(o, x.h - k + 1, x.w - k + 1);
  for (let n = 0; n < o; n++) {
    const plane = y.v.subarray(n * y.h * y.w, (n + 1) * y.h * y.w).fill(bias[n]);
    for (let c = 0; c < x.c; c++) {
      for (let a = 0; a < k; a++) {
        for (let b = 0; b < k; b++) {
          const f = data[((n * x.c + c) * k + a) * k + b];
          for (let i = 0; i < y.h; i++) {
            const from = (c * x.h + i + a) * x.w + b;
            for (let j = 0; j < y.w; j++) plane[i * y.w + j] += f * x.v[from + j];
          }
        }
      }
    }
  }
  return y;
}

function prelu(x: Map3, state: State, name: string): Map3 {
  const slope = state.get(`${name}.weight`)!.data;
  return { ...x, v: x.v.map((v, i) => (v > 0 ? v : v * slope[Math.floor(i / (x.h * x.w))])) };
}

function pool(x: Map3, k: number): Map3 {
  const y = map3(x.c, Math.ceil((x.h - k) / 2) + 1, Math.ceil((x.w - k) / 2) + 1);
  for (let c = 0; c < x.c; c++) {
    for (let i = 0; i < y.h; i++) {
      for (let j = 0; j < y.w; j++) {
        let best = Number.NEGATIVE_INFINITY;
        for (let a = 2 * i; a < Math.min(x.h, 2 * i + k); a++)
          for (let b = 2 * j; b < Math.min(x.w, 2 * j + k); b++)
            best = Math.max(best, x.v[(c * x.h + a) * x.w + b]);
        y.v[(c * y.h + i) * y.w + j] = best;
      }
    }
  }
  return y;
}

/** The map flattened in (C, H, W) order times the matrix. */
function dense(x: Map3, state: State, name: string): Map3 {
  const { shape, data } = state.get(`${name}.weight`)!;
  const bias = state.get(`${name}.bias`)!.data;
  const y = map3(shape[0], 1, 1);
  for (let o = 0; o < shape[0]; o++) {
    y.v[o] = bias[o];
    for (let i = 0; i < shape[1]; i++) y.v[o] += data[o * shape[1] + i] * x.v[i];
  }
  return y;
}

/** Probability of the second of two classes. */
const second = (a: number, b: number): number => 1 / (1 + Math.exp(a - b));

interface Found {
  box: number[];
  score: number;
  regression: number[];
  points?: number[];
}

function overlap(a: number[], b: number[], one: number, smaller: boolean): number {
  const side = (lo: number, hi: number) => Math.max(0, hi - lo + one);
  const both =
    side(Math.max(a[0], b[0]), Math.min(a[2], b[2])) * side(Math.max(a[1], b[1]), Math.min(a[3], b[3]));
  const [p, q] = [a, b].map((r) => (r[2] - r[0] + one) * (r[3] - r[1] + one));
  return both / (smaller ? Math.min(p, q) : p + q - both);
}

function suppress(found: Found[], threshold: number, smaller = false): Found[] {
  const left = [...found].sort((a, b) => b.score - a.score);
  const kept: Found[] = [];
  for (const f of left)
    if (kept.every((k) => overlap(k.box, f.box, smaller ? 1 : 0, smaller) <= threshold)) kept.push(f);
  return kept;
}

function moved({ box, regression }: Found, one: number): number[] {
  const w = box[2] - box[0] + one;
  const h = box[3] - box[1] + one;
  return box.map((v, i) => v + regression[i] * (i % 2 ? h : w));
}

function square(box: number[]): number[] {
  const side = Math.max(box[2] - box[0], box[3] - box[1]);
  const [cx, cy] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
  return [cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2];
}

function stageOne(p: Picture, state: State, minFace: number, factor: number, threshold: number): number[][] {
  const all: Found[] = [];
  for (let s = 12 / minFace; Math.min(p.width, p.height) * s >= 12; s *= factor) {
    const [h, w] = [Math.floor(p.height * s + 1), Math.floor(p.width * s + 1)];
    let x = cut(p, 0, 0, p.width, p.height, h, w);
    x = pool(prelu(conv(x, state, 'pnet.conv1'), state, 'pnet.prelu1'), 2);
    x = prelu(conv(x, state, 'pnet.conv2'), state, 'pnet.prelu2');
    x = prelu(conv(x, state, 'pnet.conv3'), state, 'pnet.prelu3');
    const logits = conv(x, state, 'pnet.conv4_1');
    const moves = conv(x, state, 'pnet.conv4_2');
    const cells = logits.h * logits.w;
    const level: Found[] = [];
    for (let i = 0; i < cells; i++) {
      const score = second(logits.v[i], logits.v[cells + i]);
      if (score < threshold) continue;
      const [cx, cy] = [i % logits.w, Math.floor(i / logits.w)];
      const box = [2 * cx + 1, 2 * cy + 1, 2 * cx + 12, 2 * cy + 12].map((v) => Math.floor(v / s));
      level.push({ box, score, regression: [0, 1, 2, 3].map((k) => moves.v[k * cells + i]) });
    }
    all.push(...suppress(level, 0.5));
  }
  return suppress(all, 0.7).map((f) => square(moved(f, 0)));
}

/** The part of the picture inside a box whose borders count from one and are inclusive. */
function chip(p: Picture, box: number[], size: number): Map3 | undefined {
  const [x0, y0] = [Math.max(Math.trunc(box[0]), 1), Math.max(Math.trunc(box[1]), 1)];
  const [x1, y1] = [Math.min(Math.trunc(box[2]), p.width), Math.min(Math.trunc(box[3]), p.height)];
  return x1 >= x0 && y1 >= y0 ? cut(p, x0 - 1, y0 - 1, x1, y1, size, size) : undefined;
}

function stageTwo(p: Picture, state: State, boxes: number[][], threshold: number): number[][] {
  const found: Found[] = [];
  for (const box of boxes) {
    let x = chip(p, box, 24);
    if (!x) continue;
    x = pool(prelu(conv(x, state, 'rnet.conv1'), state, 'rnet.prelu1'), 3);
    x = pool(prelu(conv(x, state, 'rnet.conv2'), state, 'rnet.prelu2'), 3);
    x = prelu(conv(x, state, 'rnet.conv3'), state, 'rnet.prelu3');
    x = prelu(dense(x, state, 'rnet.dense4'), state, 'rnet.prelu4');
    const { v } = dense(x, state, 'rnet.dense5_1');
    const score = second(v[0], v[1]);
    if (score > threshold) found.push({ box, score, regression: [...dense(x, state, 'rnet.dense5_2').v] });
  }
  return suppress(found, 0.7).map((f) => square(moved(f, 1)));
}

/** O-Net up to the layer before its outputs. */
function onetFeatures(x: Map3, state: State): Map3 {
  let y = pool(prelu(conv(x, state, 'onet.conv1'), state, 'onet.prelu1'), 3);
  y = pool(prelu(conv(y, state, 'onet.conv2'), state, 'onet.prelu2'), 3);
  y = pool(prelu(conv(y, state, 'onet.conv3'), state, 'onet.prelu3'), 2);
  y = prelu(conv(y, state, 'onet.conv4'), state, 'onet.prelu4');
  return prelu(dense(y, state, 'onet.dense5'), state, 'onet.prelu5');
}

function pointsOf(box: number[], fractions: Float64Array): number[] {
  const [w, h] = [box[2] - box[0] + 1, box[3] - box[1] + 1];
  return [...fractions].map((q, i) => (i < 5 ? q * w + box[0] - 1 : q * h + box[1] - 1));
}

/** Where points usually lie in the square of the second look, as complex numbers. */
const USUAL = [
  [0.315, 0.375],
  [0.685, 0.375],
  [0.5, 0.614],
  [0.341, 0.792],
  [0.659, 0.792],
];

/**
 * The mean of the points that O-Net sees, and half the score, in three squares turned with the face and in their mirror images. As complex numbers the picture's
 * place of z in the square is a·z + b, with a and b by linear regression of the points on their usual places.
 */
function secondLook(p: Picture, state: State, face: Found): Found {
  const looks = [
    look(p, state, face, 1, 0),
    look(p, state, face, 0.93, 0.07),
    look(p, state, face, 1.07, -0.07),
  ];
  const mean = looks[0].map((_, k) => (looks[0][k] + looks[1][k] + looks[2][k]) / 3);
  return { ...face, points: mean.slice(0, 10), score: (face.score + mean[10]) / 2 };
}

/** x1 … x5, y1 … y5, score. */
function look(p: Picture, state: State, face: Found, size: number, turn: number): number[] {
  // The cascade's windows are rounded down to whole pixels, its points are not: they lie half a pixel too far in the mean.
  const points = [0, 1, 2, 3, 4].map((k) => [face.points![k] - 0.5, face.points![5 + k] - 0.5]);
  const mean = (of: number[][], k: number) => of.reduce((sum, z) => sum + z[k], 0) / 5;
  const [ux, uy, px, py] = [mean(USUAL, 0), mean(USUAL, 1), mean(points, 0), mean(points, 1)];
  let [re, im, norm] = [0, 0, 0];
  for (let k = 0; k < 5; k++) {
    const [x, y, u, v] = [USUAL[k][0] - ux, USUAL[k][1] - uy, points[k][0] - px, points[k][1] - py];
    re += x * u + y * v;
    im += x * v - y * u;
    norm += x * x + y * y;
  }
  const straight = [re / norm, im / norm];
  // About the square's middle, which stays, it is turned and grows.
  const middle = [
    px + straight[0] * (0.5 - ux) - straight[1] * (0.5 - uy),
    py + straight[1] * (0.5 - ux) + straight[0] * (0.5 - uy),
  ];
  const [c, s] = [size * Math.cos(turn), size * Math.sin(turn)];
  const a = [straight[0] * c - straight[1] * s, straight[0] * s + straight[1] * c];
  const place = (x: number, y: number) => [
    middle[0] + a[0] * (x - 0.5) - a[1] * (y - 0.5),
    middle[1] + a[1] * (x - 0.5) + a[0] * (y - 0.5),
  ];
  const pixel = (x: number, y: number, k: number) =>
    x < 0 || y < 0 || x >= p.width || y >= p.height ? 0 : p.data[(y * p.width + x) * 4 + k];
  const side = Math.hypot(a[0], a[1]);
  const n = Math.min(4, Math.max(1, Math.ceil(side / 48)));
  const seen = map3(3, 48, 48);
  for (let k = 0; k < 3; k++) {
    for (let i = 0; i < 48 * 48; i++) {
      let sum = 0;
      for (let s = 0; s < n * n; s++) {
        const at = place(
          ((i % 48) + ((s % n) + 0.5) / n) / 48,
          (Math.floor(i / 48) + (Math.floor(s / n) + 0.5) / n) / 48,
        );
        // Pixels' middles are at halves.
        const [x, y] = [at[0] - 0.5, at[1] - 0.5];
        const [l, t] = [Math.floor(x), Math.floor(y)];
        const [f, g] = [x - l, y - t];
        sum +=
          (1 - g) * ((1 - f) * pixel(l, t, k) + f * pixel(l + 1, t, k)) +
          g * ((1 - f) * pixel(l, t + 1, k) + f * pixel(l + 1, t + 1, k));
      }
      seen.v[k * 48 * 48 + i] = (sum / (n * n) - 127.5) / 128;
    }
  }
  const mirrored = map3(3, 48, 48);
  for (let i = 0; i < seen.v.length; i++) mirrored.v[i] = seen.v[i - (i % 48) + 47 - (i % 48)];
  const [upright, reversed] = [seen, mirrored].map((x) => onetFeatures(x, state));
  const plain = dense(upright, state, 'onet.dense6_3').v;
  const turned = dense(reversed, state, 'onet.dense6_3').v;
  const scores = [upright, reversed].map((x) => {
    const { v } = dense(x, state, 'onet.dense6_1');
    return second(v[0], v[1]);
  });
  const back = [1, 0, 2, 4, 3, 6, 5, 7, 9, 8].map((k) => (k < 5 ? 1 - turned[k] : turned[k]));
  const both = [...plain].map((v, i) => (v + back[i]) / 2);
  const places = [0, 1, 2, 3, 4].map((k) => place(both[k], both[5 + k]).map((v) => v + 0.5));
  return [...places.map(([x]) => x), ...places.map(([, y]) => y), (scores[0] + scores[1]) / 2];
}

/** The mean box, weighted by score, of those that share 0.7 of what they cover together with one of them. */
function vote(box: number[], all: readonly Found[]): number[] {
  const size = ([x1, y1, x2, y2]: number[]) => Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
  let sum = [0, 0, 0, 0];
  let votes = 0;
  for (const other of all) {
    const b = other.box;
    const shared = size([
      Math.max(box[0], b[0]),
      Math.max(box[1], b[1]),
      Math.min(box[2], b[2]),
      Math.min(box[3], b[3]),
    ]);
    if (shared < 0.7 * (size(box) + size(b) - shared)) continue;
    sum = sum.map((v, k) => v + other.score * b[k]);
    votes += other.score;
  }
  return sum.map((v) => v / votes);
}

function stageThree(p: Picture, state: State, boxes: number[][], threshold: number, votes: boolean): Found[] {
  const found: Found[] = [];
  for (const box of boxes) {
    const seen = chip(p, box, 48);
    if (!seen) continue;
    const x = onetFeatures(seen, state);
    const { v } = dense(x, state, 'onet.dense6_1');
    const score = second(v[0], v[1]);
    if (score <= threshold) continue;
    const regression = [...dense(x, state, 'onet.dense6_2').v];
    const points = pointsOf(box, dense(x, state, 'onet.dense6_3').v);
    found.push({ box: moved({ box, score, regression }, 1), score, regression, points });
  }
  const kept = suppress(found, 0.7, true);
  return votes ? kept.map((f) => ({ ...f, box: vote(f.box, found) })) : kept;
}

export function referenceDetect(
  picture: Picture,
  state: State,
  minFace: number,
  [p, r, o]: readonly [number, number, number] = [0.6, 0.7, 0.7],
  factor = 0.709,
  { secondLook: looksTwice = false, voteBoxes = false }: { secondLook?: boolean; voteBoxes?: boolean } = {},
): ReferenceFace[] {
  const first = stageOne(picture, state, minFace, factor, p);
  const found = stageThree(picture, state, stageTwo(picture, state, first, r), o, voteBoxes);
  const seen = looksTwice
    ? found
        .map((f) => secondLook(picture, state, f))
        .filter((f) => f.score > o)
        .sort((a, b) => b.score - a.score)
    : found;
  return seen.map((f) => ({
    box: f.box,
    score: f.score,
    landmarks: [0, 1, 2, 3, 4].map((k) => [f.points![k], f.points![k + 5]]),
  }));
}
