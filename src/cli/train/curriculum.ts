// Training by rising resolution: a first run at a smaller size, whose weights the run at full size begins with.
import path from 'node:path';
import { WfrError } from '../../gpu/errors.js';
import { RunFolder } from './folder.js';
import type { TrainFlags } from './options.js';

/**
 * The runs that one command makes, in their order: one, or with --first-size two. The first has a folder of its own in the
 * other's, so each is resumed as any run is.
 * @throws WfrError when options of a first run come without its size, or --out holds a run that is not to be resumed.
 */
export async function* stagesOf(flags: TrainFlags): AsyncGenerator<TrainFlags> {
  const { firstSize, firstEpochs, firstLr, ...last } = flags;
  if (firstSize === undefined) {
    const orphan = firstEpochs !== undefined ? '--first-epochs' : firstLr !== undefined ? '--first-lr' : '';
    if (orphan) throw new WfrError(`${orphan} is for a first run at another size: give --first-size too.`);
    yield flags;
    return;
  }
  const out = path.join(flags.out, 'first');
  const weights = path.join(out, 'weights.safetensors');
  const cache = flags.cache ?? path.join(flags.out, 'cache');
  const first = { size: firstSize, epochs: firstEpochs ?? flags.epochs, lr: firstLr ?? flags.lr };
  const curriculum = { size: first.size, epochs: first.epochs, rate: first.lr };
  const then = { ...last, init: weights, cache, curriculum };
  if (await isBegun(flags)) {
    console.error(`at ${flags.size} pixels`);
    // Its checkpoint needs nothing of the first run.
    yield { ...then, init: undefined };
    return;
  }
  console.error(`first at ${firstSize} pixels, in ${out}`);
  yield { ...last, ...first, out, cache, then };
  console.error(`at ${flags.size} pixels, from ${weights}`);
  yield then;
}

/** Whether the run at full size has steps behind it, so that the first is done; what would stop it later stops it now. */
async function isBegun({ out, keep, resume }: TrainFlags): Promise<boolean> {
  const folder = await RunFolder.open(out);
  try {
    const checkpoints = await folder.checkpoints(keep, resume ?? false);
    return (await checkpoints.steps()).some((step) => step > 0);
  } finally {
    await folder.close();
  }
}
