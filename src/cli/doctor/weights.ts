import { existsSync } from 'node:fs';
import { cacheFolder, loadWeights, type Role } from '../../weights/load.node.js';
import { isPulled } from '../../weights/pull.node.js';
import { REGISTRY } from '../../weights/registry.js';
import type { Finding } from './report.js';

/** What each role is needed for, and an entry of the registry that fills it. */
const ROLES: Readonly<Record<Role, { need: string; pull: string }>> = {
  detector: { need: 'every command on pictures needs one', pull: 'mtcnn' },
  recogniser: { need: 'naming and comparing faces needs one', pull: 'mobilefacenet-xiaoccer' },
};

/** The weights that commands would use here, and what the cache holds. */
export async function examineWeights(): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const role of ['detector', 'recogniser'] as const) {
    try {
      const { metadata, files, place } = await loadWeights(role);
      findings.push({
        name: role,
        state: 'ok',
        value: `${metadata.title ?? metadata.net}, from ${files[0]} (${place})`,
      });
    } catch (error) {
      const { need, pull } = ROLES[role];
      // A broken WFR_WEIGHTS is said in full; that nothing is there needs no list of places.
      const { message } = error as Error;
      findings.push({
        name: role,
        state: 'note',
        value: /^No .* found/.test(message) ? `no weights found: ${need}` : message,
        advice: `wfr weights pull ${pull}   (wfr weights list shows others), or set WFR_WEIGHTS to a folder that holds some`,
      });
    }
  }
  const folder = cacheFolder();
  const pulled = REGISTRY.filter((e) => isPulled(e)).map((e) => e.name);
  const holds = pulled.length > 0 ? `weights ${pulled.join(', ')}` : 'no weights that were pulled';
  findings.push({
    name: 'cache',
    state: 'ok',
    value: existsSync(folder) ? `${folder}: ${holds}` : `${folder}: not there yet, made when needed`,
  });
  return findings;
}
