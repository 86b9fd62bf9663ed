import type { Command } from 'commander';
import { openGpu } from '../../gpu/gpu.js';
import { type MeasuredTuning, tuneProducts } from '../../kernels/conv2d/tune.js';
import { requireWritable } from '../../media/files.node.js';
import { interruptible } from '../interrupt.js';
import { examples, type GpuFlags, gpuOptions, type JsonFlags, jsonOption, toGpuOptions } from '../options.js';
import { progress } from '../progress.js';
import { resetTunings, storeTuning, tuningFile } from '../tuning.js';

interface Flags extends GpuFlags, JsonFlags {
  reset?: boolean;
}

export function define(command: Command): void {
  gpuOptions(jsonOption(command))
    .option('--reset', 'forget what was measured, of all adapters, and measure nothing')
    .action(tune);
  examples(command, [
    ['wfr tune', 'measure for some seconds; other commands use the result from then on'],
    ['wfr tune --json', 'the same for a program'],
    ['wfr tune --reset', 'back to the usual kernels'],
  ]);
}

async function tune(flags: Flags): Promise<void> {
  const file = tuningFile();
  if (flags.reset) {
    await resetTunings();
    console.log(
      flags.json ? JSON.stringify({ file, reset: true }) : `${file} is removed: the usual kernels.`,
    );
    return;
  }
  const gpu = await openGpu({ ...toGpuOptions(flags), tuning: undefined });
  try {
    const { vendor, architecture, device, description } = gpu.adapter.info;
    const adapter = { vendor, architecture, device, description };
    const isHardware = gpu.traits.kind === 'gpu';
    if (isHardware) await requireWritable(file);
    const tuning = isHardware ? await interruptible((signal) => measured(gpu, signal)) : null;
    if (tuning) await storeTuning(adapter, tuning);
    if (flags.json) console.log(JSON.stringify({ adapter, tuning, file: tuning && file }, null, 2));
    else console.log(tuning ? `${describe(tuning)}\nKept in ${file}.` : SOFTWARE);
  } finally {
    gpu.close();
  }
}

const SOFTWARE = 'This is a software adapter, whose kernels need no tuning: nothing was measured or written.';

async function measured(
  gpu: Parameters<typeof tuneProducts>[0],
  signal: AbortSignal,
): Promise<MeasuredTuning> {
  const bar = progress(100, '%');
  let shown = 0;
  const onProgress = (share: number): void => {
    for (; shown < Math.floor(100 * share); shown++) bar.step();
  };
  try {
    return await tuneProducts(gpu, { onProgress, signal });
  } finally {
    bar.stop();
  }
}

/** What was chosen and what it brings, a line each. */
export function describe({ side, workgroups, gains }: MeasuredTuning): string {
  const brings = (gain: number): string =>
    gain === 1 ? 'as usual' : `${gain.toFixed(2)} times as fast as usual`;
  return [
    `tiles       ${side}×${side}: large layers ${brings(gains.side)}`,
    `workgroups  ${workgroups} fill the card: layers of few pixels ${brings(gains.workgroups)}`,
  ].join('\n');
}
