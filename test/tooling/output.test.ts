import { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { progress } from '../../src/cli/progress.js';
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
  expect(terminal.text()).toMatch(/1\/5 pictures.*a\.jpg/);
  expect(terminal.text()).toContain('b.jpg: no picture\n');
});
