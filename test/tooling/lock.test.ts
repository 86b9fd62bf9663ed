import { describe, expect, it } from 'vitest';
import { lockDifference } from '../../scripts/lib/lock.mjs';

const a = { version: '1.0.0', integrity: 'sha512-aaa' };
const wanted = { packages: { '': { version: '0.1.0' }, 'node_modules/a': a } };
const here = { os: 'linux', cpu: 'x64' };

describe('lockDifference', () => {
  it('finds none when every wanted package is installed', () => {
    expect(lockDifference(wanted, { packages: { 'node_modules/a': a } }, here)).toBeNull();
  });

  it('finds a missing package, another version and another checksum', () => {
    expect(lockDifference(wanted, { packages: {} }, here)).toMatch(/node_modules\/a is not installed/);
    const older = { packages: { 'node_modules/a': { ...a, version: '0.9.0' } } };
    expect(lockDifference(wanted, older, here)).toMatch(/is 0\.9\.0, the lock wants 1\.0\.0/);
    const other = { packages: { 'node_modules/a': { ...a, integrity: 'sha512-bbb' } } };
    expect(lockDifference(wanted, other, here)).toMatch(/another checksum/);
  });

  it('does not mind optional packages that were left out, nor packages nobody asked for', () => {
    const optional = {
      packages: { ...wanted.packages, 'node_modules/b': { version: '1.0.0', optional: true } },
    };
    expect(lockDifference(optional, { packages: { 'node_modules/a': a } }, here)).toBeNull();
    const extra = { packages: { 'node_modules/a': a, 'node_modules/z': { version: '1.0.0' } } };
    expect(lockDifference(wanted, extra, here)).toBeNull();
  });

  it('finds a node_modules that was copied from another platform', () => {
    const native = { version: '1.0.0', optional: true, os: ['darwin'] };
    const lock = { packages: { 'node_modules/n': native } };
    expect(lockDifference(lock, { packages: { 'node_modules/n': native } }, here)).toMatch(
      /another platform/,
    );
    const not = { packages: { 'node_modules/n': { ...native, os: ['!win32'] } } };
    expect(lockDifference(not, not, here)).toBeNull();
    expect(lockDifference(not, not, { os: 'win32', cpu: 'x64' })).toMatch(/another platform/);
  });

  it('does not trust records of an unknown form', () => {
    expect(lockDifference(wanted, {}, here)).toMatch(/old version/);
    expect(lockDifference({}, { packages: {} }, here)).toMatch(/lists no packages/);
  });
});
