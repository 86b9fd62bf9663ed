import Table from 'cli-table3';

/**
 * A plain table for the terminal: columns aligned (also with wide characters), no borders.
 * @param head column titles; a title that ends in `>` aligns its column to the right
 * @param rows cells as they are to be shown
 */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const none = [
    'top',
    'top-mid',
    'top-left',
    'top-right',
    'bottom',
    'bottom-mid',
    'bottom-left',
    'bottom-right',
  ];
  const inner = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'];
  const drawn = new Table({
    head: head.map((title) => title.replace(/>$/, '')),
    colAligns: head.map((title) => (title.endsWith('>') ? 'right' : 'left')),
    chars: { ...Object.fromEntries([...none, ...inner].map((name) => [name, ''])), middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) drawn.push(row.map(String));
  return drawn
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
