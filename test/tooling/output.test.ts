import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { duration, progress } from '../../src/cli/progress.js';
import { table } from '../../src/cli/table.js';

it('aligns columns, wide characters included', () => {
  const text = table(
    ['name', 'score>'],
    [
      ['张伟', '0.91'],
      ['Łukasz', '12'],
      ['עברית', 3],
    ],
  );
  expect(text.split('\n')).toEqual(['name    score', '张伟     0.91', 'Łukasz     12', 'עברית       3']);
});

function sink(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  let text = '';
  const stream = new Writable({
    write(chunk, _, done) {
      text += chunk;
      done();
    },
  });
  return {
    stream: Object.assign(stream, { isTTY, columns: 80 }) as unknown as NodeJS.WriteStream,
    text: () => text,
  };
}

it('draws a bar on a terminal only, and notes everywhere', () => {
  const pipe = sink(false);
  const quiet = progress(5, 'pictures', pipe.stream);
  quiet.step('a.jpg');
  quiet.note('b.jpg: no picture');
  quiet.stop();
  expect(pipe.text()).toBe('b.jpg: no picture\n');

  const terminal = sink(true);
  const bar = progress(5, 'pictures', terminal.stream);
  bar.step('a.jpg');
  bar.note('b.jpg: no picture');
  bar.stop();
  // Before the first picture is done nobody knows how long one takes.
  expect(terminal.text()).toMatch(/0\/5 pictures {2}/);
  expect(terminal.text()).toMatch(/1\/5 pictures, \d+ s left {2}a\.jpg/);
  expect(terminal.text()).toContain('b.jpg: no picture\n');
});

it('says durations in the unit that suits', () => {
  expect([0, 1500, 99_000, 100_000, 5_400_000, 7_500_000].map(duration)).toEqual([
    '0 s',
    '2 s',
    '99 s',
    '2 min',
    '90 min',
    '2 h 05 min',
  ]);
});
