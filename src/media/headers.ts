/**
 * What a picture file says about itself, read from its first bytes without decoding a pixel: format, declared
 * size, EXIF orientation. Files are untrusted; every read is checked against the end of the file.
 */
export type PictureFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'bmp' | 'avif' | 'tiff';

export interface PictureHeader {
  format: PictureFormat;
  /** 0 where the format hides it (AVIF without a size box in reach, TIFF). */
  width: number;
  height: number;
  /** 1 where nothing is said. */
  orientation: number;
  /** Components of a JPEG: 4 is CMYK. */
  components?: number;
}

/** @returns undefined when the bytes are no picture of a known format. */
export function readHeader(bytes: Uint8Array): PictureHeader | undefined {
  const b = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ascii = (at: number, n: number) => String.fromCharCode(...bytes.subarray(at, at + n));
  if (bytes.length < 12) return undefined;
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpegHeader(bytes, b);
  if (b.getUint32(0) === 0x89504e47) return pngHeader(bytes, b);
  if (ascii(0, 4) === 'GIF8') {
    return { format: 'gif', width: b.getUint16(6, true), height: b.getUint16(8, true), orientation: 1 };
  }
  if (ascii(0, 2) === 'BM' && bytes.length >= 26) {
    return {
      format: 'bmp',
      width: Math.abs(b.getInt32(18, true)),
      height: Math.abs(b.getInt32(22, true)),
      orientation: 1,
    };
  }
  if (ascii(0, 4) === 'RIFF' && ascii(8, 4) === 'WEBP') return webpHeader(bytes, b);
  if (ascii(4, 4) === 'ftyp' && /avi[fs]|mif1/.test(ascii(8, Math.min(40, bytes.length - 8))))
    return avifHeader(bytes, b);
  if (b.getUint32(0) === 0x49492a00 || b.getUint32(0) === 0x4d4d002a) {
    return { format: 'tiff', width: 0, height: 0, orientation: tiffOrientation(bytes) };
  }
  return undefined;
}

function jpegHeader(bytes: Uint8Array, b: DataView): PictureHeader {
  const header: PictureHeader = { format: 'jpeg', width: 0, height: 0, orientation: 1 };
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at++;
      continue;
    }
    const length = b.getUint16(at + 2);
    const isExif = marker === 0xe1 && at + 10 < bytes.length && b.getUint32(at + 4) === 0x45786966;
    if (isExif) header.orientation = tiffOrientation(bytes.subarray(at + 10, at + 2 + length));
    // Start-of-frame markers, without the tables DHT, JPG and DAC that share their range.
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && at + 10 <= bytes.length) {
      header.height = b.getUint16(at + 5);
      header.width = b.getUint16(at + 7);
      header.components = bytes[at + 9];
      break;
    }
    if (marker === 0xda || length < 2) break;
    at += 2 + length;
  }
  return header;
}

function pngHeader(bytes: Uint8Array, b: DataView): PictureHeader {
  const header: PictureHeader = { format: 'png', width: 0, height: 0, orientation: 1 };
  if (bytes.length < 33) return header;
  header.width = b.getUint32(16);
  header.height = b.getUint32(20);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = b.getUint32(at);
    const type = b.getUint32(at + 4);
    if (type === 0x65584966) header.orientation = tiffOrientation(bytes.subarray(at + 8, at + 8 + length));
    if (type === 0x49444154) break;
    at += 12 + length;
  }
  return header;
}

function webpHeader(bytes: Uint8Array, b: DataView): PictureHeader {
  const header: PictureHeader = { format: 'webp', width: 0, height: 0, orientation: 1 };
  for (let at = 12; at + 8 <= bytes.length; ) {
    const type = b.getUint32(at);
    const size = b.getUint32(at + 4, true);
    const body = at + 8;
    if (type === 0x56503858 && body + 10 <= bytes.length) {
      header.width = 1 + (b.getUint32(body + 4, true) & 0xffffff);
      header.height = 1 + (b.getUint32(body + 6, true) >>> 8);
    } else if (type === 0x56503820 && body + 10 <= bytes.length && header.width === 0) {
      header.width = b.getUint16(body + 6, true) & 0x3fff;
      header.height = b.getUint16(body + 8, true) & 0x3fff;
    } else if (type === 0x5650384c && body + 5 <= bytes.length && header.width === 0) {
      const bits = b.getUint32(body + 1, true);
      header.width = 1 + (bits & 0x3fff);
      header.height = 1 + ((bits >>> 14) & 0x3fff);
    } else if (type === 0x45584946) {
      const exif = bytes.subarray(body, body + size);
      // Some writers keep JPEG's "Exif\0\0" before the TIFF header.
      header.orientation = tiffOrientation(exif[0] === 0x45 ? exif.subarray(6) : exif);
    }
    at = body + size + (size & 1);
  }
  return header;
}

/** The size box `ispe` of the first item, found by its name: enough to refuse a bomb. */
function avifHeader(bytes: Uint8Array, b: DataView): PictureHeader {
  const header: PictureHeader = { format: 'avif', width: 0, height: 0, orientation: 1 };
  for (let at = 0; at + 16 <= Math.min(bytes.length, 65536); at++) {
    if (b.getUint32(at) !== 0x69737065) continue;
    header.width = Math.max(header.width, b.getUint32(at + 8));
    header.height = Math.max(header.height, b.getUint32(at + 12));
  }
  return header;
}

/** Orientation in the first directory of a TIFF structure; 1 where there is none. */
export function tiffOrientation(tiff: Uint8Array): number {
  if (tiff.length < 14) return 1;
  const b = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const little = b.getUint16(0) === 0x4949;
  if (!little && b.getUint16(0) !== 0x4d4d) return 1;
  const directory = b.getUint32(4, little);
  if (directory + 2 > tiff.length) return 1;
  const entries = b.getUint16(directory, little);
  for (let i = 0; i < entries; i++) {
    const at = directory + 2 + 12 * i;
    if (at + 12 > tiff.length) return 1;
    if (b.getUint16(at, little) === 0x0112) {
      const value = b.getUint16(at + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}
