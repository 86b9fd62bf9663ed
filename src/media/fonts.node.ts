/**
 * Fonts that come with the package, so that names in any script are drawn on a machine without fonts: DejaVu
 * Sans (Latin, Cyrillic, Greek, Arabic, Hebrew) and Noto Sans SC in its many small parts, each registered when a label needs
 * one of its characters.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { GlobalFonts } from '@napi-rs/canvas';
import { MediaError } from './errors.js';

const require = createRequire(import.meta.url);
const BASE = 'wfr base';

interface FontPart {
  file: string;
  alias: string;
  ranges: readonly [number, number][];
  blocks?: readonly [number, number][];
}

/**
 * Packages of @fontsource with unicode-range subsets, and the blocks that each is asked for: their style sheets
 * claim characters of neighbouring scripts that the files do not hold. The last serves everything else.
 */
const SUBSET_PACKAGES: readonly { name: string; blocks?: readonly [number, number][] }[] = [
  {
    name: '@fontsource/noto-sans-devanagari',
    blocks: [
      [0x0900, 0x097f],
      [0xa8e0, 0xa8ff],
    ],
  },
  { name: '@fontsource/noto-sans-thai', blocks: [[0x0e00, 0x0e7f]] },
  {
    name: '@fontsource-variable/noto-sans-kr',
    blocks: [
      [0x1100, 0x11ff],
      [0x3130, 0x318f],
      [0xac00, 0xd7a3],
    ],
  },
  { name: '@fontsource-variable/noto-sans-sc' },
];

let parts: FontPart[] | undefined;
const registered = new Set<string>();

/**
 * Registers what the labels need.
 * @param custom a font file to prefer (`--font`).
 * @returns CSS font families for the canvas.
 * @throws MediaError when the custom font cannot be read.
 */
export function fontsFor(labels: readonly string[], custom?: string): string {
  const families: string[] = [];
  if (custom) {
    if (!existsSync(custom)) throw new MediaError(`--font ${custom}: no such file`);
    if (!registered.has(custom) && !GlobalFonts.registerFromPath(custom, `wfr custom ${custom.length}`)) {
      throw new MediaError(`--font ${custom}: not a font (ttf, otf or woff2)`);
    }
    registered.add(custom);
    families.push(`wfr custom ${custom.length}`);
  }
  if (!registered.has(BASE)) {
    const dejavu = path.join(
      path.dirname(require.resolve('dejavu-fonts-ttf/package.json')),
      'ttf',
      'DejaVuSans.ttf',
    );
    GlobalFonts.registerFromPath(dejavu, BASE);
    registered.add(BASE);
  }
  families.push(BASE);
  const needed = new Set<FontPart>();
  for (const char of labels.join('')) {
    const code = char.codePointAt(0)!;
    // DejaVu has everything up to here but the Indic scripts, and those below have parts of their own.
    if (code < 0x0900) continue;
    const covers = (ranges: FontPart['ranges']) => ranges.some(([from, to]) => code >= from && code <= to);
    const part = subsetParts().find((p) => (!p.blocks || covers(p.blocks)) && covers(p.ranges));
    if (part) needed.add(part);
  }
  for (const part of needed) {
    if (!registered.has(part.alias)) GlobalFonts.registerFromPath(part.file, part.alias);
    registered.add(part.alias);
    families.push(part.alias);
  }
  return families.map((f) => `"${f}"`).join(', ');
}

/** Reads `unicode-range` of every subset from the packages' style sheets. */
function subsetParts(): FontPart[] {
  if (parts) return parts;
  parts = [];
  for (const { name, blocks } of SUBSET_PACKAGES) {
    let folder: string;
    try {
      folder = path.dirname(require.resolve(`${name}/package.json`));
    } catch {
      continue; // Not installed: labels in its script fall back to what there is.
    }
    const sheet = ['index.css', '400.css'].map((f) => path.join(folder, f)).find(existsSync);
    if (!sheet) continue;
    const available = new Set(readdirSync(path.join(folder, 'files')));
    for (const block of readFileSync(sheet, 'utf8').match(/@font-face\s*{[^}]*}/g) ?? []) {
      const file = /url\(\.\/files\/([^)]+\.woff2)\)/.exec(block)?.[1];
      const ranges = /unicode-range:\s*([^;]+);/.exec(block)?.[1];
      if (!file || !ranges || !available.has(file)) continue;
      parts.push({
        file: path.join(folder, 'files', file),
        alias: `wfr ${file}`,
        ranges: ranges.split(',').map(parseRange),
        blocks,
      });
    }
  }
  return parts;
}

/** `U+4E00-9FFF`, `U+2F` or `U+4??`. */
function parseRange(text: string): [number, number] {
  const [from, to = from] = text.trim().replace(/^U\+/i, '').split('-');
  return [Number.parseInt(from.replace(/\?/g, '0'), 16), Number.parseInt(to.replace(/\?/g, 'F'), 16)];
}
