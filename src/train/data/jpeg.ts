/**
 * What JPEG's quantisation does to a picture, without the file: to YCbCr, 8×8 cosine transform, coefficients rounded to
 * multiples of the table of ITU-T T.81 annex K at a quality of 1 … 100 (scaled as libjpeg does), and back. The same on
 * every machine.
 */
const LUMA = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22,
  29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103,
  121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMA = [
  17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99,
  99, 99, 99, 99, 99,
];

/** Row u of the orthonormal cosine transform. */
const BASIS = Array.from({ length: 8 }, (_, u) =>
  Array.from(
    { length: 8 },
    (_, x) => (u === 0 ? Math.SQRT1_2 : 1) * 0.5 * Math.cos(((2 * x + 1) * u * Math.PI) / 16),
  ),
);

/** @param pixels RGB, side × side × 3, changed in place. */
export function jpegArtefacts(pixels: Float32Array, side: number, quality: number): void {
  const scale = quality < 50 ? 50 / quality : 2 - quality / 50;
  const block = new Float32Array(64);
  const half = new Float32Array(64);
  const planes = toYcc(pixels, side);
  planes.forEach((plane, p) => {
    const table = p === 0 ? LUMA : CHROMA;
    const steps = Array.from({ length: 64 }, (_, i) => Math.max(1, Math.round((table[i] ?? 99) * scale)));
    for (let by = 0; by < side; by += 8) {
      for (let bx = 0; bx < side; bx += 8) {
        for (let i = 0; i < 64; i++) {
          const y = Math.min(side - 1, by + (i >> 3));
          block[i] = plane[y * side + Math.min(side - 1, bx + (i & 7))];
        }
        transform(block, half, (u, x) => BASIS[u][x]);
        for (let i = 0; i < 64; i++) block[i] = Math.round(block[i] / steps[i]) * steps[i];
        transform(block, half, (x, u) => BASIS[u][x]);
        for (let i = 0; i < 64; i++) {
          const [y, x] = [by + (i >> 3), bx + (i & 7)];
          if (y < side && x < side) plane[y * side + x] = block[i];
        }
      }
    }
  });
  fromYcc(planes, pixels);
}

/** A · block · Aᵀ in place. */
function transform(block: Float32Array, half: Float32Array, a: (i: number, j: number) => number): void {
  for (let i = 0; i < 8; i++) {
    for (let x = 0; x < 8; x++) {
      let sum = 0;
      for (let j = 0; j < 8; j++) sum += a(i, j) * block[j * 8 + x];
      half[i * 8 + x] = sum;
    }
  }
  for (let y = 0; y < 8; y++) {
    for (let i = 0; i < 8; i++) {
      let sum = 0;
      for (let j = 0; j < 8; j++) sum += a(i, j) * half[y * 8 + j];
      block[y * 8 + i] = sum;
    }
  }
}

/** Luminance about zero and the two colour differences (ITU-R BT.601). */
function toYcc(pixels: Float32Array, side: number): Float32Array[] {
  const planes = [0, 1, 2].map(() => new Float32Array(side * side));
  for (let i = 0; i < side * side; i++) {
    const [r, g, b] = [pixels[i * 3], pixels[i * 3 + 1], pixels[i * 3 + 2]];
    const y = 0.299 * r + 0.587 * g + 0.114 * b;
    planes[0][i] = y - 128;
    planes[1][i] = (b - y) / 1.772;
    planes[2][i] = (r - y) / 1.402;
  }
  return planes;
}

function fromYcc([luma, blue, red]: Float32Array[], pixels: Float32Array): void {
  for (let i = 0; i < luma.length; i++) {
    const y = luma[i] + 128;
    pixels[i * 3] = y + 1.402 * red[i];
    pixels[i * 3 + 1] = y - 0.344136 * blue[i] - 0.714136 * red[i];
    pixels[i * 3 + 2] = y + 1.772 * blue[i];
  }
}
