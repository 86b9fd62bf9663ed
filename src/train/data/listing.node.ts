// Which pictures there are and who is on them: a folder per identity, a folder with index.csv, or a list in a file.
import type { Dirent } from 'node:fs';
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { WfrError } from '../../gpu/errors.js';
import { isPictureName } from '../../media/files.node.js';

export interface ListedPicture {
  /** Path to open. */
  file: string;
  /** As the folder or list names it. */
  name: string;
  /** Undefined where it is not known. */
  identity?: string;
}

export interface Listing {
  /** The folder or list, as given. */
  source: string;
  /** In the order of the index, which is a teacher's order of rows too. */
  pictures: ListedPicture[];
}

const MAX_LIST_BYTES = 256 * 1024 * 1024;
const natural = new Intl.Collator('en', { numeric: true });

/**
 * Lists the pictures of a data set.
 *  - A folder with `index.csv`: its columns `file` and, where there is one, `identity`.
 *  - A folder of folders: one an identity. Pictures directly in the folder have no identity. Links are followed.
 *  - A text file: a picture a line, path and (after a tab, comma or blank) identity; without one, its folder's name.
 *    Paths are relative to the file.
 * @throws WfrError when there is nothing, naming the line of a list that is malformed.
 */
export async function listPictures(source: string): Promise<Listing> {
  const info = await stat(source).catch(() => undefined);
  if (!info) throw new WfrError(`${source}: no such folder or list of pictures.`);
  let pictures: ListedPicture[];
  if (info.isFile()) pictures = fromList(await readText(source), source);
  else {
    const index = path.join(source, 'index.csv');
    const isIndexed = await stat(index).then(
      () => true,
      () => false,
    );
    pictures = isIndexed ? fromIndex(await readText(index), index) : await fromFolders(source);
  }
  if (pictures.length === 0)
    throw new WfrError(`${source} holds no pictures (jpg, png, webp) in folders of one identity each.`);
  return { source, pictures };
}

async function readText(file: string): Promise<string> {
  if ((await stat(file)).size > MAX_LIST_BYTES) throw new WfrError(`${file} is larger than 256 MiB.`);
  return (await readFile(file, 'utf8')).replace(/^\ufeff/, '');
}

async function fromFolders(root: string): Promise<ListedPicture[]> {
  const pictures: ListedPicture[] = [];
  /** @param above real paths of the folders that this one lies in: a link to one of them leads round in a circle. */
  const visit = async (relative: string, identity: string | undefined, above: readonly string[]) => {
    const folder = path.join(root, relative);
    const real = await realpath(folder);
    if (above.includes(real)) return;
    const entries = await readdir(folder, { withFileTypes: true });
    for (const entry of entries.sort((a, b) => natural.compare(a.name, b.name))) {
      if (entry.name.startsWith('.')) continue;
      const name = path.join(relative, entry.name);
      const file = path.join(root, name);
      if (await isFolder(entry, file)) await visit(name, identity ?? entry.name, [...above, real]);
      else if (isPictureName(entry.name)) pictures.push({ file, name, identity });
    }
  };
  await visit('', undefined, []);
  return pictures;
}

/** Of a link, what it leads to. A picture's link may lead nowhere: that is found out when it is read. */
async function isFolder(entry: Dirent, file: string): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  const info = await stat(file).catch(() => undefined);
  if (!info && !isPictureName(entry.name))
    throw new WfrError(`${file} is a link that leads nowhere: mend it, or remove it.`);
  return info?.isDirectory() ?? false;
}

function fromIndex(text: string, index: string): ListedPicture[] {
  const lines = text.split(/\r?\n/);
  const columns = lines[0].split(',').map((c) => c.trim());
  const [fileColumn, identityColumn] = [columns.indexOf('file'), columns.indexOf('identity')];
  if (fileColumn < 0) throw new WfrError(`${index}, line 1: there is no column "file".`);
  return lines.slice(1).flatMap((line, i) => {
    if (line.trim() === '') return [];
    const fields = line.split(',');
    const name = fields[fileColumn]?.trim();
    if (!name || /^([a-z]:)?[\\/]/i.test(name) || name.split(/[\\/]/).includes('..'))
      throw new WfrError(`${index}, line ${i + 2}: "${name ?? ''}" names no file below its folder.`);
    const identity = fields[identityColumn]?.trim() || undefined;
    return [{ file: path.join(path.dirname(index), name), name, identity }];
  });
}

function fromList(text: string, list: string): ListedPicture[] {
  return text.split(/\r?\n/).flatMap((line, i) => {
    if (line.trim() === '' || line.startsWith('#')) return [];
    const separator = line.includes('\t') ? /\t+/ : line.includes(',') ? /\s*,\s*/ : /\s+/;
    const [name, identity, ...rest] = line.trim().split(separator);
    if (!isPictureName(name) || rest.length > 0)
      throw new WfrError(
        `${list}, line ${i + 1}: a picture and an identity were expected, parted by a tab, comma or blank.`,
      );
    const file = path.resolve(path.dirname(list), name);
    return [{ file, name, identity: identity ?? path.basename(path.dirname(file)) }];
  });
}
