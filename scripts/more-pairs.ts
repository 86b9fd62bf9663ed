/**
 * LFW's pairs with ten times as many of different people, as a plain list: for thresholds at false-accept rates for which its
 * own 3,000 are too few. Every picture that the pairs use meets those 997, 1,999, 3,001 and 4,003 places further on in the
 * alphabet, unless that shows the same person.
 *
 *   npx tsx scripts/more-pairs.ts lfw/pairs.txt > more-pairs.txt
 */
import { readFileSync } from 'node:fs';
import { parsePairs } from '../src/face/verification/lists.js';

const [file] = process.argv.slice(2);
if (!file) {
  console.error('Give the pairs.txt of LFW.');
  process.exit(1);
}
const { pairs } = parsePairs(readFileSync(file, 'utf8'));
const lines = pairs.map(({ a, b, same }) => [a, b, same ? 1 : 0].join('\t'));
const pictures = [...new Set(pairs.flatMap(({ a, b }) => [a, b]))].sort();
const personOf = (path: string): string => path.split('/')[0];
for (const step of [997, 1999, 3001, 4003])
  for (const [i, a] of pictures.entries()) {
    const b = pictures[(i + step) % pictures.length];
    if (personOf(a) !== personOf(b)) lines.push([a, b, 0].join('\t'));
  }
process.stdout.write(`${lines.join('\n')}\n`);
