// Detections and embeddings on disk, so that a second evaluation of the same pictures takes seconds.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { writeAtomically } from '../../media/files.node.js';
import { cacheFolder } from '../../weights/load.node.js';
import type { Face } from '../detector.js';
import type { EmbedderOptions } from '../embedder.js';

/** SHA-256 of a picture file's bytes, in hexadecimal. */
export const pictureHash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/**
 * Key of an embedding: the picture's bytes and the five points it was aligned by (none: it was aligned already).
 * Any change of the detector or the alignment moves the points and so misses the cache, as it should.
 */
export function embeddingKey(sha: string, landmarks?: Face['landmarks']): string {
  const hash = createHash('sha256').update(sha, 'hex');
  if (landmarks) hash.update(new Uint8Array(Float64Array.from(landmarks.flat()).buffer));
  return hash.digest('hex');
}

/** What a picture was found to hold. */
export interface Detection {
  width: number;
  height: number;
  faces: Face[];
}

const MAX_FILE = 1 << 30;

/** Where the detections by some weights are kept between runs, by whatever command they were made. */
export const detectionsFile = (weightsHash: string, minFace: number): string =>
  path.join(cacheFolder(), 'verification', `detections-${weightsHash.slice(0, 16)}-min${minFace}.jsonl`);

/** As detectionsFile, for embeddings, told apart by how they are made. */
export function embeddingsFile(weightsHash: string, { flip, precision }: Required<EmbedderOptions>): string {
  const kind = `${flip ? 'flip' : 'plain'}${precision === 'f16' ? '-f16' : ''}`;
  return path.join(cacheFolder(), 'verification', `embeddings-${weightsHash.slice(0, 16)}-${kind}.bin`);
}

/** Detections by picture hash, in one JSON-lines file a detector and its settings. */
export class DetectionStore {
  #entries = new Map<string, Detection>();
  #changed = false;

  private constructor(readonly path: string | undefined) {}

  /** A missing or damaged file counts as empty: it is a cache. Without a path nothing is kept. */
  static async open(path?: string): Promise<DetectionStore> {
    const store = new DetectionStore(path);
    const bytes = path && (await readFile(path).catch(() => undefined));
    if (!bytes || bytes.length > MAX_FILE) return store;
    for (const line of bytes.toString('utf8').split('\n')) {
      if (!line) continue;
      try {
        const { sha, ...detection } = JSON.parse(line) as Detection & { sha: string };
        if (typeof sha === 'string' && Array.isArray(detection.faces)) store.#entries.set(sha, detection);
      } catch {
        // A damaged line costs one detection.
      }
    }
    return store;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(sha: string): Detection | undefined {
    return this.#entries.get(sha);
  }

  set(sha: string, detection: Detection): void {
    this.#entries.set(sha, detection);
    this.#changed = true;
  }

  async save(): Promise<void> {
    if (!this.#changed || !this.path) return;
    this.#changed = false;
    const lines = [...this.#entries].map(([sha, detection]) => JSON.stringify({ sha, ...detection }));
    await writeAtomically(this.path, `${lines.join('\n')}\n`);
  }
}

const MAGIC = 'wfr-embeddings-1';

/** Unit vectors by key, in one binary file a recogniser and its settings: a line of JSON, then 32 bytes of key and D floats each. */
export class EmbeddingStore {
  #entries = new Map<string, Float32Array>();
  #changed = false;

  private constructor(
    readonly path: string | undefined,
    readonly dimension: number,
  ) {}

  /** A missing or damaged file, or one of another dimension, counts as empty: it is a cache. */
  static async open(path: string | undefined, dimension: number): Promise<EmbeddingStore> {
    const store = new EmbeddingStore(path, dimension);
    const bytes = path && (await readFile(path).catch(() => undefined));
    if (bytes && bytes.length < MAX_FILE) store.#read(bytes);
    return store;
  }

  #read(bytes: Uint8Array): void {
    const end = bytes.indexOf(10);
    if (end < 0 || end > 1000) return;
    if (new TextDecoder().decode(bytes.subarray(0, end)) !== this.#header()) return;
    const record = 32 + 4 * this.dimension;
    for (let at = end + 1; at + record <= bytes.length; at += record) {
      const key = Buffer.from(bytes.buffer, bytes.byteOffset + at, 32).toString('hex');
      this.#entries.set(key, new Float32Array(Uint8Array.from(bytes.subarray(at + 32, at + record)).buffer));
    }
  }

  #header(): string {
    return JSON.stringify({ format: MAGIC, dimension: this.dimension });
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Float32Array | undefined {
    return this.#entries.get(key);
  }

  set(key: string, embedding: Float32Array): void {
    this.#entries.set(key, embedding);
    this.#changed = true;
  }

  async save(): Promise<void> {
    if (!this.#changed || !this.path) return;
    this.#changed = false;
    const header = new TextEncoder().encode(`${this.#header()}\n`);
    const record = 32 + 4 * this.dimension;
    const out = new Uint8Array(header.length + this.#entries.size * record);
    out.set(header);
    let at = header.length;
    for (const [key, embedding] of this.#entries) {
      out.set(Buffer.from(key, 'hex'), at);
      out.set(new Uint8Array(embedding.buffer, embedding.byteOffset, 4 * this.dimension), at + 32);
      at += record;
    }
    await writeAtomically(this.path, out);
  }
}
