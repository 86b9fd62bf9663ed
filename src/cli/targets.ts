// Where the results of many pictures or videos go: each to a file of its own below one folder, the input's structure kept.
import path from 'node:path';
import { WfrError } from '../gpu/errors.js';
import type { Input } from '../media/files.node.js';

/**
 * @param endingOf ending of an input's result, with its dot; '' gives names to which something is appended.
 * @returns the result's path. Pictures of one name (`a.gif` and `a.bmp`, or of two folders) each get their own.
 * @throws WfrError where a result would replace one of the inputs.
 */
export function targetsBelow(
  out: string,
  files: readonly Input[],
  endingOf: (input: Input) => string,
): (input: Pick<Input, 'path'>) => string {
  const targets = new Map<string, string>();
  const taken = new Set<string>();
  const originals = new Set(files.map((f) => path.resolve(f.path)));
  for (const input of files) {
    const { dir, name } = path.parse(input.relative);
    const ending = endingOf(input);
    let target = path.join(out, dir, name + ending);
    for (let n = 2; taken.has(target); n++) target = path.join(out, dir, `${name} (${n})${ending}`);
    if (originals.has(path.resolve(target))) {
      throw new WfrError(
        `${target} is one of the files given: choose another --out, so that no original is overwritten.`,
      );
    }
    taken.add(target);
    targets.set(input.path, target);
  }
  return ({ path: file }) => targets.get(file)!;
}
