import { describe, expect, it } from 'vitest';
import { linesOf, peersTable } from '../../scripts/performance-table.mjs';

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
