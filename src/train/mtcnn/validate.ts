import { iou } from '../../face/boxes.js';
import type { Mtcnn } from '../../face/detector.js';
import type { Picture } from '../../media/picture.js';
import type { MtcnnNet } from '../../nets/mtcnn.js';
import type { AnnotatedPicture } from './annotations.js';
import { type DetectionFigures, type Evaluated, evaluateDetections, faceSize } from './evaluate.js';

export interface CascadeFigures {
  text: string;
  /** After P and R: boxes a picture that go on, and the share of faces of 20 px and more that one of them covers (IoU 0.5). */
  proposals?: { perPicture: number; recall: number };
  /** After O: by smallest size of a face. */
  detections?: Record<number, DetectionFigures>;
}

export const SIZES = [0, 20, 40] as const;

/** How good the cascade is so far on pictures that it was not trained on, at the detector's own thresholds (O-Net's 0.05, for the whole curve). */
export async function validateCascade(
  detector: Mtcnn,
  upTo: MtcnnNet,
  pictures: readonly AnnotatedPicture[],
  read: (file: string) => Promise<Picture>,
  { minFace, onPicture }: { minFace: number; onPicture?(done: number): void },
): Promise<CascadeFigures> {
  const [first, second] = detector.thresholds;
  const evaluated: Evaluated[] = [];
  let [proposed, hit, faces] = [0, 0, 0];
  for (const [i, p] of pictures.entries()) {
    onPicture?.(i);
    const picture = await read(p.file);
    if (upTo === 'onet') {
      const found = await detector.detect(picture, { minFace, thresholds: [first, second, 0.05] });
      evaluated.push({ faces: p.faces, detections: found.map(({ box, score }) => ({ ...box, score })) });
      continue;
    }
    const boxes = await detector.propose(picture, upTo, { minFace });
    proposed += boxes.length;
    for (const { box, ignored } of p.faces) {
      if (ignored || faceSize(box) < 20) continue;
      faces++;
      if (boxes.some((b) => iou(b, box) >= 0.5)) hit++;
    }
  }
  const percent = (v: number) => `${(100 * v).toFixed(1)} %`;
  if (upTo !== 'onet') {
    const proposals = { perPicture: proposed / pictures.length, recall: hit / Math.max(1, faces) };
    const text = `${proposals.perPicture.toFixed(1)} boxes a picture, ${percent(proposals.recall)} of faces of 20 px and more in one`;
    return { text, proposals };
  }
  const detections = Object.fromEntries(SIZES.map((s) => [s, evaluateDetections(evaluated, s)]));
  const text = SIZES.map(
    (s) =>
      `from ${s} px (${detections[s].faces} faces): AP ${percent(detections[s].averagePrecision)}, recall ${percent(detections[s].recall)}, at 0.1 false positives a picture ${percent(detections[s].recallAt[0].recall)}`,
  ).join('; ');
  return { text, detections };
}
