/** Boxes, landmarks and names over a picture: one Canvas 2D routine for Node and for pages. */

export type Point = readonly [number, number];

export interface DrawnFace {
  /** Pixels of the picture. */
  box: { x1: number; y1: number; x2: number; y2: number };
  landmarks?: readonly Point[];
  /** Name, or what to write instead (`unknown`). */
  label?: string;
  /** Written after the name, 0…1. */
  similarity?: number;
  status?: 'known' | 'uncertain' | 'unknown';
}

/** The part of Canvas 2D that drawing needs; a page's context and @napi-rs/canvas's both fit. */
export interface Canvas2D {
  strokeStyle: unknown;
  fillStyle: unknown;
  lineWidth: number;
  font: string;
  textBaseline: string;
  textAlign: string;
  direction: string;
  strokeRect(x: number, y: number, w: number, h: number): void;
  fillRect(x: number, y: number, w: number, h: number): void;
  beginPath(): void;
  arc(x: number, y: number, radius: number, start: number, end: number): void;
  fill(): void;
  stroke(): void;
  fillText(text: string, x: number, y: number): void;
  measureText(text: string): { width: number };
}

export interface DrawOptions {
  width: number;
  height: number;
  landmarks?: boolean;
  /** CSS font families, in order. */
  fonts?: string;
}

const SMALLEST_FONT = 9;

export function drawFaces(context: Canvas2D, faces: readonly DrawnFace[], options: DrawOptions): void {
  // Boxes first, labels last, so that no box crosses a neighbour's name.
  for (const face of faces) drawBox(context, face, options.landmarks ?? true);
  const taken: Rectangle[] = [];
  for (const face of faces) if (face.label) taken.push(drawLabel(context, face, options, taken));
}

/** A stable colour a name, light enough for dark text; white for unknown. */
export function colourOf(face: DrawnFace): string {
  if (!face.label || face.status === 'unknown') return '#ffffff';
  let hash = 2166136261;
  for (const char of face.label) hash = Math.imul(hash ^ char.codePointAt(0)!, 16777619);
  return `hsl(${(hash >>> 0) % 360}, 90%, 70%)`;
}

function drawBox(context: Canvas2D, face: DrawnFace, landmarks: boolean): void {
  const { x1, y1, x2, y2 } = face.box;
  const width = x2 - x1;
  context.lineWidth = Math.max(1, width / 30);
  context.strokeStyle = colourOf(face);
  context.strokeRect(x1, y1, width, y2 - y1);
  if (!landmarks || !face.landmarks) return;
  const radius = Math.max(1, width / 45);
  for (const [x, y] of face.landmarks) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = colourOf(face);
    context.fill();
    context.lineWidth = Math.max(0.5, radius / 3);
    context.strokeStyle = 'rgba(0, 0, 0, 0.6)';
    context.stroke();
  }
}

interface Rectangle {
  x: number;
  y: number;
  w: number;
  h: number;
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/;

function drawLabel(
  context: Canvas2D,
  face: DrawnFace,
  { width, height, fonts = 'sans-serif' }: DrawOptions,
  taken: readonly Rectangle[],
): Rectangle {
  const { x1, x2 } = face.box;
  let size = Math.max(SMALLEST_FONT, (x2 - x1) / 6);
  const score = face.similarity === undefined ? '' : ` ${face.similarity.toFixed(2)}`;
  const question = face.status === 'uncertain' ? '?' : '';
  const text = `${face.label}${question}${score}`;
  const fontOf = (pixels: number) => `${pixels.toFixed(1)}px ${fonts}`;
  context.font = fontOf(size);
  let measured = context.measureText(text).width;
  const padding = size / 5;
  if (measured + 2 * padding > width) {
    size = Math.max(SMALLEST_FONT, (size * (width - 2 * padding)) / measured);
    context.font = fontOf(size);
    measured = context.measureText(text).width;
  }
  const rectangle = place({ w: measured + 2 * padding, h: size * 1.3 }, face.box, width, height, taken);
  const { x, y, w, h } = rectangle;
  context.fillStyle = 'rgba(0, 0, 0, 0.65)';
  context.fillRect(x, y, w, h);
  context.fillStyle = colourOf(face);
  context.textBaseline = 'middle';
  context.textAlign = 'center';
  context.direction = RIGHT_TO_LEFT.test(face.label!) ? 'rtl' : 'ltr';
  context.fillText(text, x + w / 2, y + h / 2);
  return rectangle;
}

/** Below the box; where that leaves the picture or covers another label, above it, else inside its lower edge. */
function place(
  size: { w: number; h: number },
  box: DrawnFace['box'],
  width: number,
  height: number,
  taken: readonly Rectangle[],
): Rectangle {
  const line = Math.max(1, (box.x2 - box.x1) / 30) / 2;
  const x = Math.min(Math.max(0, (box.x1 + box.x2 - size.w) / 2), Math.max(0, width - size.w));
  const wanted = [box.y2 + line, box.y1 - line - size.h, box.y2 - line - size.h];
  const inside = wanted.filter((y) => y >= 0 && y + size.h <= height);
  const free = inside.find(
    (y) => !taken.some((t) => x < t.x + t.w && t.x < x + size.w && y < t.y + t.h && t.y < y + size.h),
  );
  const y = free ?? inside[0] ?? Math.min(Math.max(0, box.y2), Math.max(0, height - size.h));
  return { x, y, ...size };
}
