// Half-written files of runs that were killed.
import { readdir, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';

/** What `writeAtomically` and the tries before it leave, and half a pack; the number is the process's. */
const LEFTOVERS = { file: /\.(\d+)\.[0-9a-f]{8}\.tmp$/, pack: /\.pack\.(\d+)\.tmp$/ };

/**
 * Removes what dead processes left half written in a folder; what cannot be removed stays.
 * @param quiet seconds that nothing was written for: in a folder that another machine may write to, whose processes
 *   cannot be asked after.
 */
export async function removeLeftovers(
  folder: string,
  kind: keyof typeof LEFTOVERS,
  quiet = 0,
): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const pid = Number(LEFTOVERS[kind].exec(name)?.[1]);
    if (!(pid > 0) || isAlive({ pid, host: hostname() })) continue;
    const file = path.join(folder, name);
    const written = (await stat(file).catch(() => undefined))?.mtimeMs ?? Number.POSITIVE_INFINITY;
    if (Date.now() - written >= 1000 * quiet) await rm(file, { force: true }).catch(() => {});
  }
}

/** Of another machine nothing can be known: it counts as alive. So does what runs under the number of one that died. */
export function isAlive({ pid, host }: { pid: number; host: string }): boolean {
  if (host !== hostname()) return true;
  // After a restart of the machine, this process may have the number of the one that was cut off.
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
