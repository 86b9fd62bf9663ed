/** Who a found face is, by this browser's bank and the loaded recogniser, and how that is drawn. */
import type { DrawnFace, Match } from '../../src/index.js';
import type { Bank } from './bank.js';
import type { FoundFace, LoadedNet } from './engine.js';

/** For names in any script. */
export const FONTS = 'system-ui, "DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", sans-serif';

/** @param net the recogniser that made the embedding; without one nobody is known. */
export function matchOf(bank: Bank, net: LoadedNet | undefined, face: FoundFace): Match {
  if (!net || !face.embedding) return { status: 'unknown' };
  return bank.facebank(net.hash).match(face.embedding, { threshold: net.threshold });
}

export function drawn(bank: Bank, net: LoadedNet | undefined, face: FoundFace): DrawnFace {
  const { box, landmarks } = face;
  const { name, similarity, status } = matchOf(bank, net, face);
  // Without a recogniser nobody was looked up: a face, not a stranger.
  if (status === 'unknown') return { box, landmarks, status, label: face.embedding ? 'unknown' : 'face' };
  return { box, landmarks, status, label: name, similarity };
}
