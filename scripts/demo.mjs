// The demo: makes a small facebank from some group photos and names the people in another one.
//
// The photos come with the development package @vladmandic/face-api; some people appear in several. Nobody's real
// name is known, so the names are made up.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createCanvas, loadImage } from '@napi-rs/canvas';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const photos = join(root, 'node_modules', '@vladmandic', 'face-api', 'demo');
const out = join(root, 'out', 'demo');
const bank = join(out, 'bank');

/** Which part of which photo shows whom: left, top, width, height in pixels. */
const PORTRAITS = [
  { name: 'Ruby', photo: 'sample1.jpg', part: [1380, 90, 420, 440] },
  { name: 'Łucja', photo: 'sample1.jpg', part: [720, 300, 420, 460] },
  { name: '美玲', photo: 'sample6.jpg', part: [1060, 190, 420, 500] },
  { name: 'Ines', photo: 'sample2.jpg', part: [1340, 60, 420, 440] },
  { name: 'Dora', photo: 'sample5.jpg', part: [1300, 280, 420, 500] },
];
const GROUP = 'sample3.jpg';

// A checkout that lies beside shared data uses the public weights there.
const shared = join(root, '..', 'shared', 'data', 'weights');
if (!process.env.WFR_WEIGHTS && existsSync(shared)) process.env.WFR_WEIGHTS = shared;

await rm(out, { recursive: true, force: true });
for (const { name, photo, part } of PORTRAITS) {
  const [x, y, w, h] = part;
  const canvas = createCanvas(w, h);
  canvas.getContext('2d').drawImage(await loadImage(join(photos, photo)), x, y, w, h, 0, 0, w, h);
  await mkdir(join(bank, name), { recursive: true });
  await writeFile(join(bank, name, photo), await canvas.encode('jpeg', 95));
}

console.log(
  `A facebank of ${PORTRAITS.length} people, cut from other photos, is in ${relative(root, bank)}.`,
);
if (wfr('weights', 'list', '--used') !== 0) {
  console.error(
    '\nThe demo needs a detector and a recogniser. Fetch public ones, then run it again:\n' +
      '  npx wfr weights pull mtcnn\n  npx wfr weights pull mobilefacenet-xiaoccer',
  );
  process.exit(1);
}
const picture = join(out, 'group.jpg');
const status = wfr('annotate', join(photos, GROUP), '--bank', bank, '--out', picture);
if (status !== 0) process.exit(status);
if (!process.env.WFR_WEIGHTS)
  console.log(
    'If it ran on the weights that ship with wfr: they miss some faces and names. For better ones:\n' +
      '  npx wfr weights pull mtcnn && npx wfr weights pull mobilefacenet-xiaoccer',
  );
console.log(
  `Look at ${relative(process.cwd(), picture) || picture}: names under the boxes, white for unknown, “?” where it is not sure.`,
);

/** @param {...string} args @returns {number} exit status */
function wfr(...args) {
  const shown = args.map((a) => (a.startsWith(root) ? relative(process.cwd(), a) : a));
  console.log(`\n$ wfr ${shown.join(' ')}`);
  const { status } = spawnSync(process.execPath, [join(root, 'bin', 'wfr.js'), ...args], {
    stdio: 'inherit',
  });
  return status ?? 1;
}
