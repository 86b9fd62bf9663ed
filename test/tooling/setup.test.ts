import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { whyInstall } from '../../scripts/lib/lock.mjs';

const root = join(import.meta.dirname, '..', '..');
let scratch: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'wfr-setup-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const setup = (checkout: string, ...flags: string[]) =>
  spawnSync(process.execPath, [join(checkout, 'scripts', 'setup.mjs'), ...flags], { encoding: 'utf8' });

describe('set-up', () => {
  it('does and says nothing in a checkout that is ready', () => {
    const done = setup(root, '--dry-run');
    expect(done.stderr).toBe('');
    expect(done.stdout).toBe('');
    expect(done.status).toBe(0);
  });

  it('would install the packages in a fresh clone, and changes nothing in a dry run', () => {
    const clone = join(scratch, 'clone');
    mkdirSync(clone);
    for (const name of ['package.json', 'package-lock.json', 'scripts']) {
      cpSync(join(root, name), join(clone, name), { recursive: true });
    }
    expect(setup(clone, '--dry-run').stdout).toMatch(/npm ci \(nothing is installed yet\)/);
    expect(whyInstall(clone)).toBe('nothing is installed yet');
  });

  it('would install ffmpeg where it is asked for and missing', () => {
    const bare = spawnSync(process.execPath, [join(root, 'scripts', 'setup.mjs'), '--dry-run', '--ffmpeg'], {
      encoding: 'utf8',
      env: { ...process.env, PATH: '/nowhere' },
    });
    expect(bare.status).toBe(0);
    expect(bare.stdout).toMatch(process.platform === 'linux' ? /ffmpeg/ : /ffmpeg was not found/);
  });

  it('refuses options that it does not have', () => {
    const refused = setup(root, '--force');
    expect(refused.stderr).toMatch(/Unknown option --force/);
    expect(refused.status).toBe(1);
  });
});

describe('whyInstall', () => {
  const lock = { lockfileVersion: 3, packages: { '': {}, 'node_modules/a': { version: '1.0.0' } } };

  it('follows an installation from nothing to complete', () => {
    const folder = join(scratch, 'steps');
    const record = join(folder, 'node_modules', '.package-lock.json');
    mkdirSync(folder);
    writeFileSync(join(folder, 'package-lock.json'), JSON.stringify(lock));
    expect(whyInstall(folder)).toMatch(/nothing is installed/);
    mkdirSync(join(folder, 'node_modules'));
    expect(whyInstall(folder)).toMatch(/did not finish/);
    writeFileSync(record, '{ "packages": ');
    expect(whyInstall(folder)).toMatch(/damaged/);
    writeFileSync(record, JSON.stringify({ packages: { 'node_modules/a': { version: '1.0.0' } } }));
    expect(whyInstall(folder)).toMatch(/node_modules\/a is missing/);
    mkdirSync(join(folder, 'node_modules', 'a'));
    writeFileSync(join(folder, 'node_modules', 'a', 'package.json'), '{}');
    expect(whyInstall(folder)).toBeNull();
  });
});
