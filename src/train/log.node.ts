/** A run's log: one JSON object a line, each with the step it belongs to. */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeAtomically } from '../media/files.node.js';

export interface LogRecord {
  step: number;
  [key: string]: unknown;
}

export class TrainingLog {
  private constructor(
    readonly file: string,
    private readonly kept: LogRecord[],
  ) {}

  /**
   * Continues a log. Records of later steps than `step` are dropped, for a resumed run writes them again; so is a
   * last line that a crash cut short.
   */
  static async open(file: string, step = 0): Promise<TrainingLog> {
    mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
    const kept = step > 0 ? readLog(file).filter((r) => r.step <= step) : [];
    await writeAtomically(file, kept.map((r) => `${JSON.stringify(r)}\n`).join(''));
    return new TrainingLog(file, kept);
  }

  write(record: LogRecord): void {
    this.kept.push(record);
    appendFileSync(this.file, `${JSON.stringify(record)}\n`);
  }

  /** Everything so far, this run's and what it continues. */
  get records(): readonly LogRecord[] {
    return this.kept;
  }
}

/** The records of a log, without lines that are no JSON object with a step; empty where there is no file. */
export function readLog(file: string): LogRecord[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        const record = JSON.parse(line) as LogRecord | null;
        return typeof record?.step === 'number' ? [record] : [];
      } catch {
        return [];
      }
    });
}
