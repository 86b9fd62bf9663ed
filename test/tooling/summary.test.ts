import { expect, it } from 'vitest';
import { summarize } from '../../scripts/test-summary.mjs';

const counts = { numPassedTests: 5, numFailedTests: 0, numPendingTests: 2, numTodoTests: 1 };

it('counts passed, failed and skipped tests', () => {
  expect(summarize(counts)).toEqual({ line: '5 passed, 0 failed, 3 skipped', ok: true });
  expect(summarize({ ...counts, numFailedTests: 1 })).toEqual({
    line: '5 passed, 1 failed, 3 skipped',
    ok: false,
  });
});

it('counts a file that could not be loaded as a failure, and one with a failed test once', () => {
  const testResults = [
    { status: 'failed', assertionResults: [] },
    { status: 'failed', assertionResults: [{ status: 'failed' }] },
    { status: 'passed', assertionResults: [{ status: 'passed' }] },
  ];
  expect(summarize({ ...counts, numFailedTests: 1, testResults }).line).toBe('5 passed, 2 failed, 3 skipped');
  expect(summarize({ ...counts, testResults: testResults.slice(0, 1) }).ok).toBe(false);
});

it('fails when nothing ran', () => {
  expect(summarize(null)).toEqual({ line: '0 passed, 0 failed, 0 skipped', ok: false });
  expect(summarize({ ...counts, numPassedTests: 0 }).ok).toBe(false);
});
