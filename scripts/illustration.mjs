// Draws docs/annotated.png: three drawn faces with the boxes, points and names that `wfr annotate` draws, by the
// same routine. Photographs of people are not kept in the project.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createCanvas } from '@napi-rs/canvas';
import { renderAnnotated } from '../dist/media/annotate.node.js';
import { writeAtomically } from '../dist/media/files.node.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [width, height] = [960, 420];
const canvas = createCanvas(width, height);
const c = canvas.getContext('2d');
const sky = c.createLinearGradient(0, 0, 0, height);
sky.addColorStop(0, '#35506b');
sky.addColorStop(1, '#1b2836');
c.fillStyle = sky;
c.fillRect(0, 0, width, height);

/** @type {({ x: number, y: number, size: number, skin: string, hair: string, shirt: string } & Pick<import('../dist/media/draw.js').DrawnFace, 'label' | 'similarity' | 'status'>)[]} */
const people = [
  {
    x: 190,
    y: 190,
    size: 88,
    skin: '#e3b48f',
    hair: '#3b2417',
    shirt: '#b5483f',
    label: 'Łukasz',
    similarity: 0.71,
    status: 'known',
  },
  {
    x: 480,
    y: 170,
    size: 96,
    skin: '#f0cba8',
    hair: '#14120f',
    shirt: '#3f7a5c',
    label: '美玲',
    similarity: 0.66,
    status: 'known',
  },
  {
    x: 770,
    y: 200,
    size: 84,
    skin: '#9a6a49',
    hair: '#0d0b0a',
    shirt: '#4f5fa8',
    label: 'unknown',
    status: 'unknown',
  },
];
/** @param {number} x @param {number} y @param {number} rx @param {number} ry @param {string} colour */
const disc = (x, y, rx, ry, colour) => {
  c.fillStyle = colour;
  c.beginPath();
  c.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI);
  c.fill();
};
const faces = people.map(({ x, y, size: s, skin, hair, shirt, ...face }) => {
  disc(x, y + 2.75 * s, 1.5 * s, 1.5 * s, shirt);
  disc(x, y + 1.2 * s, 0.35 * s, 0.6 * s, skin);
  disc(x, y - 0.2 * s, 0.98 * s, 1.12 * s, hair);
  disc(x, y + 0.1 * s, 0.78 * s, 1.02 * s, skin);
  /** @type {[number, number][]} */
  const landmarks = [
    [x - 0.34 * s, y - 0.05 * s],
    [x + 0.34 * s, y - 0.05 * s],
    [x, y + 0.3 * s],
    [x - 0.28 * s, y + 0.62 * s],
    [x + 0.28 * s, y + 0.62 * s],
  ];
  for (const [u, v] of landmarks.slice(0, 2)) {
    disc(u, v, 0.15 * s, 0.09 * s, '#ffffff');
    disc(u, v, 0.07 * s, 0.08 * s, '#2a211c');
  }
  c.strokeStyle = '#8c3b35';
  c.lineWidth = 0.07 * s;
  c.beginPath();
  c.arc(x, y + 0.42 * s, 0.35 * s, 0.2 * Math.PI, 0.8 * Math.PI);
  c.stroke();
  return {
    ...face,
    landmarks,
    box: { x1: x - 0.78 * s, y1: y - 0.85 * s, x2: x + 0.78 * s, y2: y + 1.1 * s },
  };
});
const picture = { width, height, data: c.getImageData(0, 0, width, height).data };
await writeAtomically(
  join(root, 'docs', 'annotated.png'),
  await renderAnnotated(picture, faces, { format: 'png' }),
);
