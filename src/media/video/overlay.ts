/** Draws faces over I420 frames: on a transparent canvas, of which only the touched rectangles are blended in. */
import { type Canvas2D, type DrawnFace, drawFaces } from '../draw.js';
import { blend, displayed, type I420Frame, type Rectangle, type Rotation, type YuvMatrix } from './i420.js';

/** A 2D context of a transparent canvas, with what reading it back needs. */
export interface OverlayContext extends Canvas2D {
  clearRect(x: number, y: number, w: number, h: number): void;
  getImageData(x: number, y: number, w: number, h: number): { data: Uint8ClampedArray };
}

export class Overlay {
  readonly #touched: Recorder;
  readonly #size: { width: number; height: number };

  /** @param context of a canvas of the displayed size, transparent */
  constructor(
    private readonly context: OverlayContext,
    stored: { width: number; height: number },
    private readonly matrix: YuvMatrix,
    private readonly rotation: Rotation,
  ) {
    this.#size = displayed(stored, rotation);
    this.#touched = new Recorder(context);
  }

  /** Draws into the frame, in place. Coordinates of the faces are those of the displayed frame. */
  draw(
    frame: I420Frame,
    faces: readonly DrawnFace[],
    options: { landmarks?: boolean; fonts?: string },
  ): void {
    if (faces.length === 0) return;
    drawFaces(this.#touched, faces, { ...this.#size, ...options });
    for (const touched of this.#touched.take()) {
      const area = this.#even(touched);
      if (!area) continue;
      const { data } = this.context.getImageData(area.x, area.y, area.width, area.height);
      // Cleared at once, so that where two rectangles overlap nothing is blended twice.
      this.context.clearRect(area.x, area.y, area.width, area.height);
      blend(frame, area, data, this.matrix, this.rotation);
    }
  }

  /** The rectangle widened to even coordinates, inside the frame. */
  #even({ x, y, width, height }: Rectangle): Rectangle | undefined {
    const left = Math.max(0, Math.floor(x / 2) * 2);
    const top = Math.max(0, Math.floor(y / 2) * 2);
    const right = Math.min(this.#size.width, Math.ceil((x + width) / 2) * 2);
    const bottom = Math.min(this.#size.height, Math.ceil((y + height) / 2) * 2);
    return right > left && bottom > top
      ? { x: left, y: top, width: right - left, height: bottom - top }
      : undefined;
  }
}

/** Passes drawing on and notes where it drew; text lies in its label's background, which is noted already. */
class Recorder implements Canvas2D {
  #touched: Rectangle[] = [];
  #path: Rectangle[] = [];

  constructor(private readonly inner: Canvas2D) {}

  take(): Rectangle[] {
    const touched = this.#touched;
    this.#touched = [];
    return touched;
  }

  #note(x: number, y: number, width: number, height: number, border = 1): void {
    this.#touched.push({
      x: x - border,
      y: y - border,
      width: width + 2 * border,
      height: height + 2 * border,
    });
  }

  strokeRect(x: number, y: number, w: number, h: number): void {
    this.inner.strokeRect(x, y, w, h);
    const line = this.lineWidth / 2;
    this.#note(x - line, y - line, w + 2 * line, 2 * line);
    this.#note(x - line, y + h - line, w + 2 * line, 2 * line);
    this.#note(x - line, y - line, 2 * line, h + 2 * line);
    this.#note(x + w - line, y - line, 2 * line, h + 2 * line);
  }

  fillRect(x: number, y: number, w: number, h: number): void {
    this.inner.fillRect(x, y, w, h);
    this.#note(x, y, w, h);
  }

  beginPath(): void {
    this.inner.beginPath();
    this.#path = [];
  }

  arc(x: number, y: number, radius: number, start: number, end: number): void {
    this.inner.arc(x, y, radius, start, end);
    this.#path.push({ x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius });
  }

  fill(): void {
    this.inner.fill();
    for (const { x, y, width, height } of this.#path) this.#note(x, y, width, height);
  }

  stroke(): void {
    this.inner.stroke();
    for (const { x, y, width, height } of this.#path) this.#note(x, y, width, height, 1 + this.lineWidth / 2);
  }

  fillText(text: string, x: number, y: number): void {
    this.inner.fillText(text, x, y);
  }

  measureText(text: string): { width: number } {
    return this.inner.measureText(text);
  }

  get lineWidth(): number {
    return this.inner.lineWidth;
  }
  set lineWidth(value: number) {
    this.inner.lineWidth = value;
  }
  get strokeStyle(): unknown {
    return this.inner.strokeStyle;
  }
  set strokeStyle(value: unknown) {
    this.inner.strokeStyle = value;
  }
  get fillStyle(): unknown {
    return this.inner.fillStyle;
  }
  set fillStyle(value: unknown) {
    this.inner.fillStyle = value;
  }
  get font(): string {
    return this.inner.font;
  }
  set font(value: string) {
    this.inner.font = value;
  }
  get textBaseline(): string {
    return this.inner.textBaseline;
  }
  set textBaseline(value: string) {
    this.inner.textBaseline = value;
  }
  get textAlign(): string {
    return this.inner.textAlign;
  }
  set textAlign(value: string) {
    this.inner.textAlign = value;
  }
  get direction(): string {
    return this.inner.direction;
  }
  set direction(value: string) {
    this.inner.direction = value;
  }
}
