// Turns vitest's JSON report into one plain line, `N passed, N failed, N skipped`, and fails when a test
// failed, a test file could not be loaded, or nothing ran at all.
//
//   node scripts/test-summary.mjs REPORT.json
import { existsSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/**
 * @param {{ numPassedTests?: number, numFailedTests?: number, numPendingTests?: number, numTodoTests?: number,
 *   testResults?: { status: string, assertionResults: { status: string }[] }[] } | null} report
 * @returns {{ line: string, ok: boolean }}
 */
export function summarize(report) {
  const passed = report?.numPassedTests ?? 0;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  // A file that does not load has no tests to count, yet it is a failure.
  const broken = (report?.testResults ?? []).filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = (report?.numFailedTests ?? 0) + broken;
  return { line: `${passed} passed, ${failed} failed, ${skipped} skipped`, ok: failed === 0 && passed > 0 };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const file = process.argv[2];
  const { line, ok } = summarize(existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null);
  console.log(line);
  process.exit(ok ? 0 : 1);
}
