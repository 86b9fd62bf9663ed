// The worst wrongly judged pairs of an evaluation, with their faces as the net saw them.
import { encodePicture } from '../../media/annotate.node.js';
import { decodePicture } from '../../media/decode.node.js';
import { alignFace } from '../crops.js';
import type { EmbeddedPicture, SourcePicture } from './embed.node.js';
import { similarityOf } from './metrics.js';
import type { Verification } from './protocol.js';
import type { ReportError } from './report.js';
import type { ScoredSet, TestPair } from './run.node.js';

export interface Misjudged {
  pair: TestPair;
  distance: number;
}

/** Pairs on the wrong side of their fold's threshold, worst first. */
export function misjudged(
  scored: ScoredSet,
  { folds }: Verification,
): { rejects: Misjudged[]; accepts: Misjudged[] } {
  const rejects: Misjudged[] = [];
  const accepts: Misjudged[] = [];
  let start = 0;
  for (const { threshold, pairs } of folds) {
    for (let i = start; i < start + pairs; i++) {
      const distance = scored.distances[i];
      const accepted = distance <= threshold;
      if (accepted !== scored.same[i])
        (accepted ? accepts : rejects).push({ pair: scored.pairs[i], distance });
    }
    start += pairs;
  }
  return {
    rejects: rejects.sort((a, b) => b.distance - a.distance),
    accepts: accepts.sort((a, b) => a.distance - b.distance),
  };
}

/** Adds the aligned faces as data URIs. */
export async function illustrate(
  errors: readonly Misjudged[],
  pictures: readonly SourcePicture[],
  embedded: ReadonlyMap<string, EmbeddedPicture>,
): Promise<ReportError[]> {
  const sources = new Map(pictures.map((p) => [p.id, p]));
  const side = async (id: string) => {
    const face = embedded.get(id);
    const label = id.split('/').at(-1)!;
    if (!face?.embedding) return { label };
    const picture = await decodePicture(await sources.get(id)!.read());
    const crop = face.landmarks ? alignFace(picture, face.landmarks) : picture;
    const jpeg = Buffer.from(await encodePicture(crop, 'jpg')).toString('base64');
    return { label, image: `data:image/jpeg;base64,${jpeg}` };
  };
  const out: ReportError[] = [];
  for (const { pair, distance } of errors) {
    out.push({ a: await side(pair.a), b: await side(pair.b), similarity: similarityOf(distance) });
  }
  return out;
}
