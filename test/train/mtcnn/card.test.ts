import { expect, it } from 'vitest';
import { detectorCard } from '../../../src/train/mtcnn/card.js';
import { STAGES } from '../../../src/train/mtcnn/stage.js';

it("a detector's card says how it was made, from what, and what was measured", () => {
  const picture = { file: 'a.jpg', name: 'a.jpg', faces: [] };
  const input = {
    title: 'my detector',
    command: 'wfr train mtcnn --data wider',
    sources: ['wider', 'faces.csv'],
    data: { pictures: [picture, picture], heldOut: [picture], listed: [], negatives: ['b.jpg'] },
    validated: 1,
    seed: 7,
    stages: { ...STAGES, onet: { ...STAGES.onet, steps: 123, pointsWeight: 9 } },
    device: 'a card',
  };
  const detections = {
    40: {
      faces: 12,
      averagePrecision: 0.8504,
      recall: 0.9,
      recallAt: [{ falsePositives: 0.1, recall: 0.75 }],
    },
  };
  const card = detectorCard({ ...input, figures: { text: '', detections } });
  expect(card).toMatch(/^# my detector\n/);
  for (const part of [
    '```sh\nwfr train mtcnn --data wider\n```',
    '| O-Net | 123 of 64 | 0.003 | 1 : 4 : 9 |',
    '2 pictures with boxes, 0 lone faces with points, 1 backgrounds, from wider, faces.csv.',
    'On 1 held-out pictures',
    '| from 40 px | 12 | 85.0 % | 75.0 % at 0.1 |',
    'seed 7, on a card',
  ])
    expect(card).toContain(part);
  expect(detectorCard(input)).toContain('Nothing was measured during the run.');
});
