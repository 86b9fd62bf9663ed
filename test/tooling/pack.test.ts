import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
const windows = process.platform === 'win32';

/** Every file below a folder, relative to the project, with forward slashes. */
function filesBelow(folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => join(root, folder, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => relative(root, path).replaceAll('\\', '/'));
}

function npm(args: string[], cwd: string) {
  const env = { ...process.env, WFR_NO_PREPARE: '1', npm_config_update_notifier: 'false' };
  return spawnSync('npm', args, { cwd, encoding: 'utf8', env, shell: windows, maxBuffer: 64 << 20 });
}

let scratch: string;
let tarball: string;
let packed: string[];

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'wfr-pack-'));
  execFileSync(process.execPath, [join(root, 'scripts', 'build.mjs')], { stdio: 'pipe' });
  const result = npm(['pack', '--json', '--pack-destination', scratch], root);
  if (result.status !== 0) throw new Error(result.stderr);
  const [report] = JSON.parse(result.stdout.slice(result.stdout.indexOf('[')));
  tarball = join(scratch, report.filename);
  packed = report.files.map((file: { path: string }) => file.path).sort();
}, 120_000);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe('the packed tarball', () => {
  it('holds what was built from the sources, and the weights, and nothing else', () => {
    const built = filesBelow('src')
      .filter((path) => path.endsWith('.ts') && !path.endsWith('/reference.ts'))
      .map((path) => path.replace(/^src\//, 'dist/').replace(/\.ts$/, ''))
      .flatMap((stem) => [`${stem}.js`, `${stem}.d.ts`]);
    const others = ['LICENSE', 'README.md', 'package.json', 'bin/wfr.js', 'dist/browser/wfr.js'];
    // `wfr doctor` gives the set-up's advice.
    const advice = ['scripts/lib/apt.mjs', 'scripts/lib/driver.mjs'];
    const wanted = [...others, ...advice, ...built, ...filesBelow('weights')];
    expect(packed).toEqual(wanted.sort());
  });

  it('installs into an empty folder, where the command and the library start', (ctx) => {
    const folder = mkdtempSync(join(scratch, 'user-'));
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
    const quiet = ['--no-audit', '--no-fund', '--no-save', tarball];
    // `npm ci` has left every dependency in npm's cache; without that, the network is asked.
    let installed = npm(['install', '--offline', ...quiet], folder);
    if (installed.status !== 0) installed = npm(['install', '--prefer-offline', ...quiet], folder);
    if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH/.test(installed.stderr)) {
      ctx.skip("no network, and npm's cache lacks a dependency");
    }
    expect(installed.stderr).not.toMatch(/npm error/);
    expect(installed.status).toBe(0);

    const help = spawnSync('npx', ['--no-install', 'wfr', '--help'], {
      cwd: folder,
      encoding: 'utf8',
      shell: windows,
    });
    expect(help.stdout).toMatch(/Usage: wfr[\s\S]*doctor/);
    expect(help.status).toBe(0);

    // Every packed module loads: none needs a file or a package that was left behind.
    const modules = packed
      .filter((path) => /^dist\/.*\.js$/.test(path) && !/worker/.test(path))
      .map((path) => `./node_modules/wfr/${path}`);
    const script = `for (const m of ${JSON.stringify(modules)}) await import(m).catch((e) => { throw new Error(m + ': ' + e.message); });
      const { openGpu } = await import('wfr');
      console.log(typeof openGpu);`;
    writeFileSync(join(folder, 'load.js'), script);
    const load = spawnSync(process.execPath, ['load.js'], { cwd: folder, encoding: 'utf8' });
    expect(load.stderr).not.toMatch(/Error/);
    expect(load.stdout.trim()).toBe('function');
  }, 180_000);
});
