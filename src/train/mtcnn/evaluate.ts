/**
 * How good detections are: average precision and recall at fixed numbers of false positives a picture.
 *
 * A detection, best score first, takes the true face that it overlaps most among those not taken, if the overlap
 * (intersection over union) reaches a half. Faces that are ignored or outside the size asked for are neither won nor
 * missed, and what is found on them, or outside that size on nothing, counts neither way (as COCO does). Average precision is
 * the area under the precision-recall curve made falling, over all points (PASCAL VOC from 2010 on).
 */
import { iou, type ScoredBox } from '../../face/boxes.js';
import type { AnnotatedFace } from './annotations.js';

export interface Evaluated {
  faces: readonly AnnotatedFace[];
  detections: readonly ScoredBox[];
}

export interface DetectionFigures {
  /** True faces of the size. */
  faces: number;
  averagePrecision: number;
  /** Share of faces found at all. */
  recall: number;
  /** Share found while at most this many false positives a picture are let in. */
  recallAt: { falsePositives: number; recall: number }[];
}

export const FALSE_POSITIVES = [0.1, 0.3, 1] as const;
const OVERLAP = 0.5;

/** The smaller side, in pixels: what "a face of 20 px" means. */
export const faceSize = (b: { x1: number; y1: number; x2: number; y2: number }): number =>
  Math.min(b.x2 - b.x1, b.y2 - b.y1);

/** @param least smallest size of a face that counts. */
export function evaluateDetections(pictures: readonly Evaluated[], least = 0): DetectionFigures {
  const outcomes: { score: number; hit: boolean }[] = [];
  let total = 0;
  for (const { faces, detections } of pictures) {
    const counts = faces.map((f) => !f.ignored && faceSize(f.box) >= least);
    total += counts.filter(Boolean).length;
    const taken = new Set<number>();
    for (const d of [...detections].sort((a, b) => b.score - a.score)) {
      let best = -1;
      let most = OVERLAP;
      for (const [i, f] of faces.entries()) {
        if (taken.has(i)) continue;
        const overlap = iou(d, f.box);
        // A face that counts is preferred to one that does not, whatever the overlap.
        const better = best < 0 || counts[i] === counts[best] ? overlap >= most : counts[i];
        if (overlap >= OVERLAP && better) {
          best = i;
          most = overlap;
        }
      }
      if (best >= 0) taken.add(best);
      if (best >= 0 ? counts[best] : faceSize(d) >= least) outcomes.push({ score: d.score, hit: best >= 0 });
    }
  }
  return figures(outcomes, total, pictures.length);
}

function figures(
  outcomes: { score: number; hit: boolean }[],
  faces: number,
  pictures: number,
): DetectionFigures {
  outcomes.sort((a, b) => b.score - a.score);
  const recalls: number[] = [];
  const precisions: number[] = [];
  const recallAt = FALSE_POSITIVES.map((falsePositives) => ({ falsePositives, recall: 0 }));
  let hits = 0;
  outcomes.forEach(({ hit }, i) => {
    if (hit) hits++;
    recalls.push(faces > 0 ? hits / faces : 0);
    precisions.push(hits / (i + 1));
    for (const r of recallAt) if (i + 1 - hits <= r.falsePositives * pictures) r.recall = recalls[i];
  });
  let averagePrecision = 0;
  let best = 0;
  for (let i = outcomes.length - 1; i >= 0; i--) {
    best = Math.max(best, precisions[i]);
    averagePrecision += best * (recalls[i] - (i > 0 ? recalls[i - 1] : 0));
  }
  return { faces, averagePrecision, recall: faces > 0 ? hits / faces : 0, recallAt };
}
