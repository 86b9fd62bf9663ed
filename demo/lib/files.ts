/** Files that were dropped, pasted or chosen, with the folders they came in. */

export interface Dropped {
  file: File;
  /** `folder/sub/name.jpg`; the bare name for a single file. */
  path: string;
}

const PICTURE = /\.(jpe?g|png|webp|avif|gif|bmp)$/i;
const WEIGHTS = /\.(safetensors|pt|pth|ckpt|npy|params|onnx)$/i;
const VIDEO = /\.(mp4|m4v|mov|webm|mkv)$/i;

export const isPicture = ({ file, path }: Dropped): boolean =>
  file.type.startsWith('image/') || PICTURE.test(path);
export const isWeights = ({ path }: Dropped): boolean => WEIGHTS.test(path);
export const isVideo = ({ file, path }: Dropped): boolean =>
  file.type.startsWith('video/') || VIDEO.test(path);
export const isBank = ({ path }: Dropped): boolean => /\.zip$/i.test(path);

export const fromList = (files: Iterable<File>): Dropped[] =>
  [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

/** Everything in a drop, folders walked. Must be called before the event is over. */
export async function fromTransfer(transfer: DataTransfer): Promise<Dropped[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((e) => e != null);
  if (entries.length === 0) return fromList(transfer.files);
  return (await Promise.all(entries.map((entry) => walk(entry, '')))).flat();
}

async function walk(entry: FileSystemEntry, before: string): Promise<Dropped[]> {
  const path = before + entry.name;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) =>
      (entry as FileSystemFileEntry).file(resolve, reject),
    );
    return [{ file, path }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: Dropped[] = [];
  // A reader gives at most a hundred entries at a time.
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (part.length === 0) return found;
    found.push(...(await Promise.all(part.map((e) => walk(e, `${path}/`)))).flat());
  }
}

/** Calls back with files dropped anywhere on the page or pasted into it, and marks the page while they hover. */
export function onFiles(callback: (files: Dropped[]) => void): void {
  let depth = 0;
  const mark = (by: number) => {
    depth = Math.max(0, depth + by);
    document.body.classList.toggle('dropping', depth > 0);
  };
  addEventListener('dragenter', () => mark(1));
  addEventListener('dragleave', () => mark(-1));
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', async (event) => {
    event.preventDefault();
    mark(-depth);
    if (event.dataTransfer) callback(await fromTransfer(event.dataTransfer));
  });
  addEventListener('paste', (event) => {
    const files = fromList(event.clipboardData?.files ?? []);
    if (files.length > 0) callback(files);
  });
}

export function save(name: string, bytes: BlobPart, type: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
