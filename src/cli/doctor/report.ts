import type { Tuning } from '../../gpu/traits.js';

/** One thing that was looked at. `missing` is something wfr cannot do without, `note` is worth knowing. */
export interface Finding {
  readonly name: string;
  readonly state: 'ok' | 'note' | 'missing';
  readonly value: string;
  /** What to do about it; lines. */
  readonly advice?: string;
}

/** All that `wfr doctor` found; `--json` prints it as it is. */
export interface DoctorReport {
  readonly ready: boolean;
  readonly findings: readonly Finding[];
  readonly adapter: AdapterFacts | null;
  readonly versions: Readonly<Record<string, string | null>>;
}

export interface AdapterFacts {
  readonly description: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly kind: 'software' | 'hardware';
  /** What `wfr tune` measured, null where it did not. */
  readonly tuning: Tuning | null;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  /** null when the probe was skipped. */
  readonly speed: { gflops: number; firstMs: number; roundTripMs: number } | null;
}

export interface Paint {
  green(text: string): string;
  yellow(text: string): string;
  red(text: string): string;
  dim(text: string): string;
}

/** The report for people: one line a finding, what to do indented below it. */
export function renderReport(report: DoctorReport, paint: Paint): string {
  const width = Math.max(...report.findings.map((f) => f.name.length));
  const lines: string[] = [];
  for (const finding of report.findings) {
    const mark = { ok: paint.green('ok     '), note: paint.yellow('note   '), missing: paint.red('missing') }[
      finding.state
    ];
    lines.push(`${mark}  ${finding.name.padEnd(width)}  ${finding.value}`);
    const advice = finding.advice?.split('\n') ?? [];
    advice.forEach((line, i) => {
      lines.push(`${' '.repeat(9 + width + 2)}${i === 0 ? paint.dim('→') : ' '} ${line}`);
    });
  }
  lines.push(
    '',
    report.ready ? 'wfr can run here.' : 'wfr cannot run here yet: see the lines marked "missing".',
  );
  return lines.join('\n');
}
