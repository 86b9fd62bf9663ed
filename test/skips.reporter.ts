import type { Reporter, TestModule } from 'vitest/node';

/** Prints every skipped test with the reason it gave (`ctx.skip('reason')`), before the summary. */
export default class SkipsReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const lines = new Map<string, string[]>();
    for (const module of modules) {
      for (const test of module.children.allTests('skipped')) {
        const result = test.result();
        const reason = (result.state === 'skipped' && result.note) || 'no reason given';
        const names = lines.get(reason) ?? [];
        names.push(`${module.relativeModuleId} > ${test.fullName}`);
        lines.set(reason, names);
      }
    }
    if (lines.size > 0) console.log('\nSkipped:');
    for (const [reason, names] of lines) {
      console.log(`  ${reason}`);
      for (const name of names) console.log(`    ${name}`);
    }
  }
}
