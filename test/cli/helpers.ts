// Runs commands in this process on drawn pictures, with random weights that find and compare something.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeAll, beforeEach, vi } from 'vitest';
import { commands } from '../../src/cli/commands.js';
import { run } from '../../src/cli/main.js';
import { encodePicture } from '../../src/media/annotate.node.js';
import { saveWeights } from '../../src/weights/save.node.js';
import { blobs, eagerMtcnn, smallRecogniser } from '../face/helpers.js';

let dir: string;
let weights: string;

/** What the command in hand wrote to standard output and to standard error. */
export const printed: string[] = [];
export const complained: string[] = [];

/** A fresh folder and caught output for every test of the file that calls this. */
export function inTemporaryFolder(): void {
  beforeAll(async () => {
    weights = mkdtempSync(path.join(tmpdir(), 'wfr-weights-'));
    await saveWeights(path.join(weights, 'detector.safetensors'), eagerMtcnn());
    await saveWeights(path.join(weights, 'recogniser.safetensors'), smallRecogniser());
    return () => rmSync(weights, { recursive: true, force: true });
  });
  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'wfr-cli-'));
    forget();
    vi.spyOn(console, 'log').mockImplementation((text) => void printed.push(String(text)));
    vi.spyOn(console, 'error').mockImplementation((text) => void complained.push(String(text)));
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => complained.push(String(text)) > 0);
  });
  afterEach(() => {
    vi.restoreAllMocks();
    process.exitCode = undefined;
    rmSync(dir, { recursive: true, force: true });
  });
}

export const inDir = (...parts: string[]): string => path.join(dir, ...parts);

/** Draws a picture; the same size and seed give the same one. */
export async function put(file: string, width: number, height: number, seed = 1): Promise<void> {
  mkdirSync(path.dirname(inDir(file)), { recursive: true });
  const format = file.endsWith('.jpg') ? 'jpg' : 'png';
  writeFileSync(inDir(file), await encodePicture(blobs(width, height, seed), format));
}

export const wfr = (...args: string[]): Promise<void> => run([...args, '--weights', weights], commands);

/** Runs a command with --json and forgets what was said before. */
export async function wfrJson(...args: string[]) {
  forget();
  await wfr(...args, '--json');
  return JSON.parse(printed.join('\n'));
}

function forget(): void {
  printed.length = 0;
  complained.length = 0;
  process.exitCode = undefined;
}

export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => path.relative(folder, path.join(e.parentPath, e.name)).replaceAll('\\', '/'))
    .sort();
}
