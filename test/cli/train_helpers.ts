// `wfr train` as a process of its own, and drawn faces for it.
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { encodePicture } from '../../src/media/annotate.node.js';
import { drawPerson } from '../train/people.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = new URL('../../src/cli/main.ts', import.meta.url).href;
const SIDE = 112;

export interface Ended {
  /** Null where a signal ended it. */
  status: number | null;
  stderr: string;
}

/** Starts `wfr train` from the sources. */
export function startTrain(...args: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const script = `import { run } from ${JSON.stringify(main)}; await run(process.argv.slice(1));`;
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', script, '--', 'train', ...args],
    { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stderr }));
  });
  return { child, ended };
}

export const train = (...args: string[]): Promise<Ended> => startTrain(...args).ended;

/** A PNG of a drawn person, of the size that needs no aligning. */
export function drawnFace(person: number, picture: number): Promise<Uint8Array> {
  const rgb = drawPerson(person, picture, SIDE);
  const data = new Uint8ClampedArray(SIDE * SIDE * 4).fill(255);
  for (let i = 0; i < SIDE * SIDE; i++) data.set(rgb.subarray(i * 3, i * 3 + 3), i * 4);
  return encodePicture({ width: SIDE, height: SIDE, data }, 'png');
}
