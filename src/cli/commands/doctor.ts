import type { Command } from 'commander';
import pico from 'picocolors';
import { examineAdapter } from '../doctor/adapter.js';
import { type DoctorReport, type Finding, renderReport } from '../doctor/report.js';
import { examineCanvas, examineFfmpeg } from '../doctor/tools.js';
import { examineWeights } from '../doctor/weights.js';
import { examples, type GpuFlags, gpuOptions, type JsonFlags, jsonOption, numberIn } from '../options.js';
import { packageVersion, wfrVersion } from '../version.js';

interface Flags extends GpuFlags, JsonFlags {
  seconds: number;
}

export function define(command: Command): void {
  gpuOptions(jsonOption(command))
    .option('--seconds <n>', 'how long to measure the speed; 0 skips it', numberIn(0, 60), 2)
    .action(doctor);
  examples(command, [
    ['wfr doctor', 'the whole report, with a speed probe of two seconds'],
    ['wfr doctor --seconds 0', 'the same without the probe'],
    ['wfr doctor --json > doctor.json', 'to attach to a bug report'],
  ]);
}

async function doctor(flags: Flags): Promise<void> {
  const report = await examine(flags);
  console.log(flags.json ? JSON.stringify(report, null, 2) : renderReport(report, pico));
  if (!report.ready) process.exitCode = 1;
}

async function examine(flags: Flags): Promise<DoctorReport> {
  const versions = { wfr: wfrVersion(), node: process.versions.node, webgpu: packageVersion('webgpu') };
  const others = [...(await examineWeights()), await examineCanvas(), await examineFfmpeg()];
  // Last and alone, so that nothing else takes time from what is measured.
  const adapter = await examineAdapter(flags, flags.seconds);
  const findings: Finding[] = [
    {
      name: 'versions',
      state: 'ok',
      value: `wfr ${versions.wfr}, Node ${versions.node}, webgpu ${versions.webgpu ?? 'not installed'} (${process.platform} ${process.arch})`,
    },
    ...adapter.findings,
    ...others,
  ];
  return { ready: findings.every((f) => f.state !== 'missing'), findings, adapter: adapter.facts, versions };
}
