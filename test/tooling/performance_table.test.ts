import { describe, expect, it } from 'vitest';
import {
  growthTable,
  kernelsTable,
  linesOf,
  peersTable,
  withTables,
} from '../../scripts/performance-table.mjs';

describe('the table of engines', () => {
  it('has a row an engine and a column a net; the last of two measurements counts', () => {
    const line = (engine: string, net: string, processor_ms: number) =>
      JSON.stringify({ bench: 'peer', engine, net, processor_ms, ms: 2 * processor_ms, first_ms: 1500 });
    const text = ['Some warning', line('a', 'x', 1), line('a', 'x', 120), line('b', 'y', 3.14)].join('\n');
    const failed = JSON.stringify({ bench: 'peer', engine: 'b', net: 'x', failed: 'no adapter' });
    expect(peersTable(linesOf(`${text}\n${failed}\n{"bench":"net"}`)).split('\n')).toEqual([
      '| engine | x | y |',
      '|---|---|---|',
      '| a | 120 (240; 1.5 s) |  |',
      '| b | failed | 3.1 (6.3; 1.5 s) |',
    ]);
  });
});

describe('the table of kernels', () => {
  const kernel = (net: string, name: string, ms: number) => ({
    bench: 'kernel',
    net,
    engine: '',
    kernel: name,
    calls: 2,
    ms,
    gflops: 40.06,
    gbytes: null,
    share_of_roof: 0.305,
  });

  it('leaves out what hardly counts', () => {
    const lines = [kernel('x', 'a', 98), kernel('x', 'b', 2), kernel('y', 'b', 2)];
    expect(kernelsTable(lines).split('\n').slice(2)).toEqual([
      '| x | a | 2 | 98.0 | 40.1 |  | 31 % |',
      '| y | b | 2 | 2.0 | 40.1 |  | 31 % |',
    ]);
  });

  it('goes between its markers and leaves other tables alone', () => {
    const page = ['peers', 'kernels']
      .map((n) => `<!-- ${n}: written by scripts/performance-table.mjs -->\nold\n<!-- /${n} -->\n`)
      .join('text\n');
    const next = withTables(page, [kernel('x', 'a', 1)]);
    expect(next).toContain(
      '<!-- peers: written by scripts/performance-table.mjs -->\nold\n<!-- /peers -->\ntext',
    );
    expect(next.match(/old/g)).toHaveLength(1);
    expect(next).toContain('| x | a |');
    expect(() => withTables('', [kernel('x', 'a', 1)])).toThrow('markers');
  });
});

it('makes a table of each kind of growth', () => {
  const line = (grows: string, size: number, ms: number, more: object) =>
    JSON.stringify({ bench: 'grow', grows, size, ms, ...more });
  const lines = [
    line('batch', 1, 5, { ms_each: 5 }),
    line('batch', 8, 16, { ms_each: 2 }),
    line('bank', 100, 0.1, {}),
  ];
  expect(growthTable(linesOf(lines.join('\n')))).toBe(
    '| **batch** | 1 | 8 |\n|---|---|---|\n| ms | 5 | 16 |\n| ms each | 5 | 2 |\n\n| **bank** | 100 |\n|---|---|\n| ms | 0.1 |',
  );
});
