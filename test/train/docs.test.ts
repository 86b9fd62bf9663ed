import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { openWeights } from '../../src/weights/save.node.js';

const at = (file: string) => new URL(`../../${file}`, import.meta.url).href;

it('the program of docs/training.md trains and saves weights that tell what they are', async () => {
  const text = readFileSync(new URL(at('docs/training.md')), 'utf8');
  const [, example] = /```js\n(import [\s\S]*?)```/.exec(text)!;
  // As it stands, but smaller and shorter.
  const changes = [
    ["'wfr/node'", `'${at('src/index.node.ts')}'`],
    ['height: 112, width: 112', 'height: 32, width: 32'],
    ['size: 112,', 'size: 32,'],
    ['batch: 32', 'batch: 4'],
    ['epochs: 20', 'epochs: 1'],
  ] as const;
  const script = changes.reduce((code, [from, to]) => {
    expect(code.split(from), from).toHaveLength(2);
    return code.replace(from, to);
  }, example);
  const files = `import { drawPerson } from '${at('test/train/people.ts')}';
    const files = [0, 1, 2, 3].flatMap((p) => [0, 1].map((k) => ({
      person: 'p' + p, name: p + '/' + k, rgb: drawPerson(p, k, 112),
    })));`;
  const folder = mkdtempSync(join(tmpdir(), 'wfr-docs-'));
  try {
    const tsx = fileURLToPath(import.meta.resolve('tsx'));
    const child = spawn(
      process.execPath,
      ['--import', `file://${tsx}`, '--input-type=module', '-e', `${files}\n${script}`],
      { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let out = '';
    for await (const chunk of child.stdout) out += chunk;
    expect(out).toMatch(/^1 \d+\.\d+\n2 \d+\.\d+\n$/);
    const { metadata, state } = await openWeights([join(folder, 'weights.safetensors')]);
    expect(metadata).toMatchObject({ net: 'mobilefacenet', input: { height: 32, width: 32 } });
    expect(state.get('stem.conv.weight')!.shape).toEqual([64, 3, 3, 3]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 300_000);
