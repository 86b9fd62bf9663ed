/** Pixels in RGBA order, 8 bits each, row by row from the top left, already turned the way they are looked at. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/**
 * Turns a picture by its EXIF orientation (TIFF 6 tag 0x0112, 1…8) so that row 0 is the visual top and column
 * 0 the visual left side.
 */
export function applyOrientation(picture: Picture, orientation: number): Picture {
  if (orientation < 2 || orientation > 8) return picture;
  const { width: w, height: h } = picture;
  const swap = orientation >= 5;
  const width = swap ? h : w;
  const height = swap ? w : h;
  const source = new Uint32Array(
    picture.data.buffer.slice(picture.data.byteOffset, picture.data.byteOffset + w * h * 4),
  );
  const out = new Uint32Array(w * h);
  // Where output pixel (x, y) comes from, as start + x·stepX + y·stepY in the source.
  const [start, stepX, stepY] = {
    2: [w - 1, -1, w],
    3: [h * w - 1, -1, -w],
    4: [(h - 1) * w, 1, -w],
    5: [0, w, 1],
    6: [(h - 1) * w, -w, 1],
    7: [h * w - 1, -w, -1],
    8: [w - 1, w, -1],
  }[orientation as 2 | 3 | 4 | 5 | 6 | 7 | 8] as [number, number, number];
  let at = 0;
  for (let y = 0; y < height; y++) {
    let from = start + y * stepY;
    for (let x = 0; x < width; x++, from += stepX) out[at++] = source[from];
  }
  return { width, height, data: new Uint8Array(out.buffer) };
}

/** The mean of each block of `by` × `by` pixels; what is left over at the right and below is dropped. */
export function averaged(picture: Picture, by: number): Picture {
  if (by === 1) return picture;
  const [width, height] = [Math.floor(picture.width / by), Math.floor(picture.height / by)];
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < data.length; i++) {
    const [k, x, y] = [i % 4, (i >> 2) % width, Math.floor((i >> 2) / width)];
    let sum = 0;
    for (let v = y * by; v < (y + 1) * by; v++)
      for (let u = x * by; u < (x + 1) * by; u++) sum += picture.data[(v * picture.width + u) * 4 + k];
    data[i] = sum / (by * by);
  }
  return { width, height, data };
}
