import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');

/** A house with one right import and, per rule, one wrong one; the checker runs over it once. */
const files: Record<string, string> = {
  'src/gpu/ok.ts': 'export const gpu = 1;',
  'src/kernels/ok.ts': "export { gpu } from '../gpu/ok.js';",
  'src/gpu/dynamic.ts': "export const load = () => import('./system.node.js');",
  'src/gpu/system.node.ts': "import { readFileSync } from 'node:fs';\nexport const read = readFileSync;",
  'src/cli/main.ts': "import { readFileSync } from 'node:fs';\nexport const read = readFileSync;",
  'src/gpu/upwards.ts': "export { gpu } from '../kernels/ok.js';",
  'src/gpu/upwards_type.ts': "import type { Face } from '../face/ok.js';\nexport type F = Face;",
  'src/face/ok.ts': 'export interface Face { x: number }',
  'src/kernels/upwards.ts': "export * from '../graph/ok.js';",
  'src/graph/ok.ts': 'export const graph = 1;',
  'src/graph/upwards.ts': "export * from '../weights/ok.js';",
  'src/weights/ok.ts': 'export const weights = 1;',
  'src/weights/upwards.ts': "export * from '../nets/ok.js';",
  'src/nets/ok.ts': 'export const nets = 1;',
  'src/nets/upwards.ts': "export * from '../train/ok.js';",
  'src/train/ok.ts': 'export const train = 1;',
  'src/train/upwards.ts': "export * from '../cli/main.js';",
  'src/media/ok.ts': 'export const media = 1;',
  'src/media/sideways.ts': "export * from '../train/ok.js';",
  'src/face/upwards.ts': "export * from '../train/ok.js';",
  'src/index.ts': "export * from './cli/main.js';",
  'src/graph/a.ts': "import { b } from './b.js';\nexport const a = (): number => b();",
  'src/graph/b.ts': "import { a } from './a.js';\nexport const b = (): number => a();",
  'src/media/builtin.ts': "import { join } from 'node:path';\nexport const j = join;",
  'src/media/package.ts': "export { createCanvas } from '@napi-rs/canvas';",
  'src/media/static.ts': "export { read } from '../gpu/system.node.js';",
  'src/media/dev.ts': "export * from 'vitest';",
  'src/kernels/add/reference.ts': 'export const add = (a: number, b: number): number => a + b;',
  'src/kernels/add/forward.ts': "export { add } from './reference.js';",
  'src/media/nowhere.ts': "export * from './nowhere_at_all.js';",
};

interface Violation {
  from: string;
  rule: { name: string };
}

let house: string;
let violations: Violation[];

beforeAll(() => {
  house = mkdtempSync(join(tmpdir(), 'wfr-imports-'));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(house, path)), { recursive: true });
    writeFileSync(join(house, path), `${text}\n`);
  }
  for (const name of ['.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) {
    cpSync(join(root, name), join(house, name));
  }
  symlinkSync(join(root, 'node_modules'), join(house, 'node_modules'), 'junction');
  const cruiser = join(root, 'node_modules', 'dependency-cruiser', 'bin', 'dependency-cruise.mjs');
  const args = [cruiser, '--config', '.dependency-cruiser.cjs', '--output-type', 'json', 'src'];
  const result = spawnSync(process.execPath, args, { cwd: house, encoding: 'utf8', maxBuffer: 64 << 20 });
  if (!result.stdout.startsWith('{')) throw new Error(result.stderr || result.stdout);
  violations = JSON.parse(result.stdout).summary.violations;
});

afterAll(() => rmSync(house, { recursive: true, force: true }));

const rulesAt = (file: string) => [
  ...new Set(violations.filter((v) => v.from === file).map((v) => v.rule.name)),
];

describe('the import checker', () => {
  it.each([
    ['src/gpu/upwards.ts', 'floor-gpu'],
    ['src/gpu/upwards_type.ts', 'floor-gpu'],
    ['src/kernels/upwards.ts', 'floor-kernels'],
    ['src/graph/upwards.ts', 'floor-graph'],
    ['src/weights/upwards.ts', 'floor-weights'],
    ['src/nets/upwards.ts', 'floor-nets'],
    ['src/train/upwards.ts', 'floor-train'],
    ['src/media/sideways.ts', 'floor-media'],
    ['src/face/upwards.ts', 'floor-face'],
    ['src/index.ts', 'entries-without-cli'],
    ['src/media/builtin.ts', 'browser-no-builtins'],
    ['src/media/package.ts', 'browser-no-node-packages'],
    ['src/media/static.ts', 'browser-no-node-modules'],
    ['src/media/dev.ts', 'only-dependencies'],
    ['src/kernels/add/forward.ts', 'references-are-for-tests'],
    ['src/media/nowhere.ts', 'resolvable'],
  ])('refuses %s by the rule %s', (file, rule) => {
    expect(rulesAt(file)).toContain(rule);
  });

  it('refuses two modules that import each other', () => {
    const circle = violations.filter((v) => v.rule.name === 'no-circles').map((v) => v.from);
    expect(circle.some((file) => file === 'src/graph/a.ts' || file === 'src/graph/b.ts')).toBe(true);
  });

  it('lets right imports through', () => {
    const right = ['src/kernels/ok.ts', 'src/gpu/dynamic.ts', 'src/gpu/system.node.ts', 'src/cli/main.ts'];
    for (const file of right) expect(rulesAt(file)).toEqual([]);
  });
});
