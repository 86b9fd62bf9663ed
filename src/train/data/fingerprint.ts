/**
 * 64 bits, in hex, that change with the content: two lanes of FNV-1a from different starts. For noticing that data is
 * not what it was, in pages too; against intent it protects nothing.
 */
export function fingerprint(parts: Iterable<string | Uint8Array | Float32Array>): string {
  let [a, b] = [0x811c9dc5, 0x9e3779b9];
  const add = (value: number): void => {
    a = Math.imul(a ^ value, 0x01000193);
    b = Math.imul(b ^ value ^ (a >>> 15), 0x85ebca6b);
  };
  for (const part of parts) {
    add(part.length);
    if (typeof part === 'string') for (let i = 0; i < part.length; i++) add(part.charCodeAt(i));
    else for (const byte of new Uint8Array(part.buffer, part.byteOffset, part.byteLength)) add(byte);
  }
  return [a, b].map((h) => (h >>> 0).toString(16).padStart(8, '0')).join('');
}
