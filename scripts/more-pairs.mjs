/**
 * LFW's pairs with ten times as many of different people, as a plain list: for thresholds at false-accept rates for which its
 * own 3,000 are too few. Every picture that the pairs use meets those 997, 1,999, 3,001 and 4,003 places further on in the
 * alphabet, unless that shows the same person.
 *
 *   node scripts/more-pairs.mjs lfw/pairs.txt > more-pairs.txt
 */
import { readFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
if (!file) {
  console.error('Give the pairs.txt of LFW.');
  process.exit(1);
}
const picture = (name, number) => `${name}/${name}_${number.padStart(4, '0')}.jpg`;
const pairs = readFileSync(file, 'utf8')
  .trim()
  .split(/\r?\n/)
  .slice(1)
  .map((line) => line.split(/\t/))
  .map(([name, i, other, j]) =>
    j === undefined
      ? [picture(name, i), picture(name, other), 1]
      : [picture(name, i), picture(other, j), 0],
  );
const pictures = [...new Set(pairs.flatMap(([a, b]) => [a, b]))].sort();
const personOf = (path) => path.split('/')[0];
for (const step of [997, 1999, 3001, 4003]) {
  for (const [i, a] of pictures.entries()) {
    const b = pictures[(i + step) % pictures.length];
    if (personOf(a) !== personOf(b)) pairs.push([a, b, 0]);
  }
}
process.stdout.write(pairs.map((pair) => `${pair.join('\t')}\n`).join(''));
