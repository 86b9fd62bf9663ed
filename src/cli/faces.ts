// How faces are shown: the same fields in every command's JSON and the same columns in every table.
import type { Face } from '../face/detector.js';
import type { Match } from '../face/match.js';

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

export interface FaceJson {
  box: { x1: number; y1: number; x2: number; y2: number };
  score: number;
  landmarks: (readonly [number, number])[];
  name?: string;
  similarity?: number;
  status?: string;
}

export function faceToJson({ box, score, landmarks, ...rest }: Face & Partial<Match>): FaceJson {
  const json: FaceJson = {
    box: { x1: round(box.x1, 1), y1: round(box.y1, 1), x2: round(box.x2, 1), y2: round(box.y2, 1) },
    score: round(score, 4),
    landmarks: landmarks.map(([x, y]) => [round(x, 1), round(y, 1)] as const),
  };
  if (rest.status) {
    json.status = rest.status;
    if (rest.name !== undefined && rest.status !== 'unknown') json.name = rest.name;
    if (rest.similarity !== undefined) json.similarity = round(rest.similarity, 4);
  }
  return json;
}

/** Left, top, width and height as one cell. */
export function boxCell({ box }: Face): string {
  const { x1, y1, x2, y2 } = box;
  return `${Math.round(x1)},${Math.round(y1)} ${Math.round(x2 - x1)}×${Math.round(y2 - y1)}`;
}

/** `Łukasz`, `Łukasz?` when uncertain, `unknown`. */
export function nameCell({ name, status }: Match): string {
  if (status === 'unknown' || name === undefined) return 'unknown';
  return status === 'uncertain' ? `${name}?` : name;
}
