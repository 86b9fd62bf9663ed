/** The facebank of this browser: crops and embeddings in IndexedDB, exported as a folder that `wfr --bank` takes. */
import { strFromU8, strToU8, unzipSync, zipSync } from 'fflate';
import { type DBSchema, type IDBPDatabase, openDB } from 'idb';
import { Facebank } from '../../src/index.js';

export interface Portrait {
  id: number;
  name: string;
  /** Picture of the face with some of its surroundings. */
  crop: Blob;
  embedding: Float32Array;
  /** Of the recogniser that made the embedding. */
  hash: string;
}

interface Schema extends DBSchema {
  portraits: { key: number; value: Omit<Portrait, 'id'> & { id?: number } };
}

/** What may not be in a folder's name, here or on another system. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are among them
const UNSAFE = /[\\/:*?"<>|\u0000-\u001f]|^\.+$/g;
const MAX_UNZIPPED = 512 * 2 ** 20;

export class Bank {
  #portraits: Portrait[] = [];
  /** Made when first asked for, by recogniser; dropped when people come or go. */
  readonly #facebanks = new Map<string, Facebank>();

  private constructor(private readonly db: IDBPDatabase<Schema>) {}

  static async open(): Promise<Bank> {
    const db = await openDB<Schema>('wfr', 1, {
      upgrade: (fresh) => void fresh.createObjectStore('portraits', { keyPath: 'id', autoIncrement: true }),
    });
    const bank = new Bank(db);
    bank.#portraits = (await db.getAll('portraits')) as Portrait[];
    return bank;
  }

  get portraits(): readonly Portrait[] {
    return this.#portraits;
  }

  get names(): string[] {
    return [...new Set(this.#portraits.map((p) => p.name))].sort((a, b) => a.localeCompare(b));
  }

  async add(portrait: Omit<Portrait, 'id'>): Promise<void> {
    const id = await this.db.add('portraits', portrait);
    this.#portraits.push({ ...portrait, id });
    this.#facebanks.clear();
  }

  async remove(ids: readonly number[]): Promise<void> {
    const transaction = this.db.transaction('portraits', 'readwrite');
    await Promise.all([...ids.map((id) => transaction.store.delete(id)), transaction.done]);
    this.#portraits = this.#portraits.filter((p) => !ids.includes(p.id));
    this.#facebanks.clear();
  }

  /** Those whose embeddings the loaded recogniser can compare. */
  facebank(hash: string): Facebank {
    let facebank = this.#facebanks.get(hash);
    if (!facebank) {
      const usable = this.#portraits.filter((p) => p.hash === hash);
      facebank = new Facebank(
        usable.map((p) => ({ name: p.name, picture: `${p.id}`, embedding: p.embedding })),
      );
      this.#facebanks.set(hash, facebank);
    }
    return facebank;
  }

  /** A folder a person with their pictures, and the embeddings beside them. */
  async export(): Promise<Uint8Array> {
    const files: Record<string, Uint8Array> = {};
    const embeddings: Record<string, { hash: string; embedding: number[] }> = {};
    for (const p of this.#portraits) {
      const path = `${p.name.replace(UNSAFE, '_')}/${p.id}.jpg`;
      files[path] = new Uint8Array(await p.crop.arrayBuffer());
      embeddings[path] = { hash: p.hash, embedding: [...p.embedding] };
    }
    const index = {
      version: 1,
      names: Object.fromEntries(this.#portraits.map((p) => [p.name.replace(UNSAFE, '_'), p.name])),
      embeddings,
    };
    files['bank.json'] = strToU8(JSON.stringify(index));
    return zipSync(files, { level: 0 });
  }

  /** @returns how many pictures came in. @throws Error when it is no exported bank. */
  async import(zip: Uint8Array): Promise<number> {
    let total = 0;
    const files = unzipSync(zip, {
      filter: ({ originalSize }) => {
        total += originalSize;
        if (total > MAX_UNZIPPED) throw new Error('The bank unpacks to more than 512 MiB.');
        return true;
      },
    });
    if (!files['bank.json']) throw new Error('This zip file is no exported bank: it has no bank.json.');
    const index = JSON.parse(strFromU8(files['bank.json'])) as {
      names?: Record<string, string>;
      embeddings?: Record<string, { hash: string; embedding: number[] }>;
    };
    let added = 0;
    for (const [path, { hash, embedding }] of Object.entries(index.embeddings ?? {})) {
      const folder = path.split('/')[0];
      if (!files[path] || !Array.isArray(embedding)) continue;
      const crop = new Blob([files[path] as BlobPart], { type: 'image/jpeg' });
      await this.add({
        name: String(index.names?.[folder] ?? folder),
        crop,
        hash: String(hash),
        embedding: Float32Array.from(embedding),
      });
      added++;
    }
    return added;
  }
}
