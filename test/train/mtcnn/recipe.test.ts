import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PNG } from 'pngjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Mtcnn } from '../../../src/face/detector.js';
import { initialize } from '../../../src/nets/initialize.js';
import { onet, pnet, rnet } from '../../../src/nets/mtcnn.js';
import { readCheckpoint } from '../../../src/train/checkpoint.node.js';
import { readLog } from '../../../src/train/log.node.js';
import { type DetectorData, findDetectorData } from '../../../src/train/mtcnn/data.node.js';
import { NETS, type RecipeOptions, trainMtcnn } from '../../../src/train/mtcnn/recipe.node.js';
import { Random } from '../../../src/train/random.js';
import { openWeights } from '../../../src/weights/save.node.js';
import type { StateDict } from '../../../src/weights/state_dict.js';
import { sharedGpu } from '../../check_op.js';

let folder: string;
let data: DetectorData;

/** A light disc with two eyes, a nose and a mouth, on coloured noise: something to find without anyone's picture. */
function drawFace(png: PNG, x: number, y: number, size: number): number[] {
  const at = (u: number, v: number): [number, number] => [x + u * size, y + v * size];
  const points = [at(0.3, 0.38), at(0.7, 0.38), at(0.5, 0.58), at(0.35, 0.77), at(0.65, 0.77)];
  const dot = (cx: number, cy: number, rx: number, ry: number, colour: readonly number[]) => {
    for (let py = Math.floor(cy - ry); py <= cy + ry; py++)
      for (let px = Math.floor(cx - rx); px <= cx + rx; px++)
        if (
          ((px - cx) / rx) ** 2 + ((py - cy) / ry) ** 2 <= 1 &&
          px >= 0 &&
          py >= 0 &&
          px < png.width &&
          py < png.height
        )
          png.data.set(colour, (py * png.width + px) * 4);
  };
  dot(...at(0.5, 0.5), size / 2, size / 2, [230, 190, 160]);
  for (const k of [0, 1]) dot(...points[k], size * 0.1, size * 0.07, [20, 20, 40]);
  dot(...points[2], size * 0.05, size * 0.1, [160, 110, 90]);
  dot(...at(0.5, 0.77), size * 0.17, size * 0.05, [150, 30, 40]);
  return points.flat();
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-mtcnn-'));
  const lines: string[] = [];
  const list = ['file,x1,y1,x2,y2,score,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy'];
  for (let i = 0; i < 36; i++) {
    const random = Random.of(i, 'picture');
    const png = new PNG({ width: 96, height: 80 });
    const [fx, fy, fz] = [random.between(0.05, 0.3), random.between(0.05, 0.3), random.next() * 6];
    for (let p = 0; p < 96 * 80; p++) {
      const wave = Math.sin((p % 96) * fx + fz) + Math.cos(Math.floor(p / 96) * fy);
      const v = 110 + 40 * wave + random.between(-20, 20);
      png.data.set([v, v * 0.8, 255 - v, 255], p * 4);
    }
    const size = random.between(24, 48);
    const [x, y] = [random.between(2, 92 - size), random.between(2, 76 - size)];
    const points = drawFace(png, x, y, size).map((v) => Number(v.toFixed(2)));
    const file = `${i}.png`;
    await writeFile(path.join(folder, file), PNG.sync.write(png));
    if (i < 28)
      lines.push(JSON.stringify({ file, faces: [[x, y, size, size]], landmarks: [[...points, 1]] }));
    else list.push([file, x, y, x + size, y + size, 1, ...points].join(','));
  }
  await writeFile(path.join(folder, 'annotations.jsonl'), lines.join('\n'));
  await writeFile(path.join(folder, 'points.csv'), list.join('\n'));
  await writeFile(path.join(folder, 'held-out.txt'), '3.png\n9.png\n15.png\n21.png\n');
  data = await findDetectorData({
    data: folder,
    points: [path.join(folder, 'points.csv')],
    heldOut: path.join(folder, 'held-out.txt'),
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const options = (out: string): RecipeOptions => ({
  out: path.join(folder, out),
  seed: 1,
  minFace: 22,
  mineFace: 22,
  stages: {
    pnet: { batch: 64, steps: 120, rate: 5e-3 },
    rnet: { batch: 32, steps: 50, rate: 3e-3 },
    onet: { batch: 16, steps: 80, rate: 2e-3 },
  },
});

describe('the recipe of the detector', () => {
  it('finds the data', () => {
    expect([data.pictures.length, data.heldOut.length, data.listed.length]).toEqual([24, 4, 8]);
    expect(data.pictures.every((p) => p.faces[0].points)).toBe(true);
  });

  it('refuses data of no use', async () => {
    const refused = async (places: Omit<Parameters<typeof findDetectorData>[0], 'data'>, message: RegExp) =>
      expect(findDetectorData({ data: folder, ...places })).rejects.toThrow(message);
    const put = async (name: string, text: string) => {
      await writeFile(path.join(folder, name), text);
      return path.join(folder, name);
    };
    await refused(
      { negatives: path.join(folder, 'nowhere') },
      /--negatives .*nowhere: no such file or folder/,
    );
    await mkdir(path.join(folder, 'empty'));
    await refused(
      { negatives: path.join(folder, 'empty') },
      /--negatives .*empty: the folder holds no pictures/,
    );
    await refused(
      { heldOut: await put('strange.txt', 'x.png\ny.png\n') },
      /strange\.txt: none of its 2 names.*0\.png/,
    );
    const notes: string[] = [];
    const some = await put('some.txt', '3.png\r\nx.png\r\n\r\n4.png\r\n');
    const found = await findDetectorData({ data: folder, heldOut: some }, (line) => notes.push(line));
    expect(found.heldOut.map((p) => p.name)).toEqual(['3.png', '4.png']);
    expect(notes).toEqual([expect.stringMatching(/some\.txt: 1 of its 3 names .* x\.png/)]);
    const [header, ...rows] = (await readFile(path.join(folder, 'points.csv'), 'utf8')).split('\n');
    const headless = await put('headless.csv', rows.join('\n'));
    await refused({ points: [headless] }, /headless\.csv: .*the columns file,x1,.*rmy/);
    for (const text of [header, '[]'])
      await refused(
        { points: [await put('rowless', text)] },
        /rowless: no row can be used: .*columns file,x1/,
      );
  });

  it('trains no net without positives and negatives, and goes on once there are', async () => {
    const gpu = await sharedGpu();
    const o: RecipeOptions = {
      ...options('lacking-samples'),
      nets: ['pnet'],
      stages: { ...options('').stages, pnet: { batch: 32, steps: 2, rate: 1e-3 } },
      validate: 0,
    };
    const gone = {
      ...data,
      pictures: data.pictures.map((p) => ({ ...p, file: `${p.file}.gone` })),
      listed: [],
    };
    await expect(trainMtcnn(gpu, gone, o)).rejects.toThrow(
      /pnet cannot be trained, there are no positives .* and no negatives .* 24 of 24 pictures could not be read/,
    );
    const faceless = { ...data, pictures: data.pictures.map((p) => ({ ...p, faces: [] })), listed: [] };
    await expect(trainMtcnn(gpu, faceless, { ...o, resume: true })).rejects.toThrow(
      /there are no positives \(windows on faces\)\. Positives need faces of at least 14 pixels/,
    );
    await expect(trainMtcnn(gpu, { ...data, pictures: [] }, { ...o, resume: true })).rejects.toThrow(
      /there are no negatives \(background\)\. .*--negatives/,
    );
    const negatives = data.pictures.map((p) => p.file);
    const lone = { ...data, pictures: [], negatives };
    expect(existsSync(path.join(o.out, 'pnet', 'samples.pack'))).toBe(false);
    await trainMtcnn(gpu, lone, { ...o, resume: true });
    expect(existsSync(path.join(o.out, 'pnet', 'done'))).toBe(true);
  }, 120_000);

  it('lowers every loss, beats chance and writes a detector with report', async () => {
    const gpu = await sharedGpu();
    const { file, report, figures } = await trainMtcnn(gpu, data, {
      ...options('run'),
      thresholds: [0.6, 0.1, 0.8],
    });
    for (const net of NETS) {
      const records = readLog(path.join(folder, 'run', net, 'log.jsonl')).filter((r) => 'classLoss' in r);
      const [first, last] = [records[0], records[records.length - 1]] as unknown as Record<string, number>[];
      expect(last.loss, net).toBeLessThan(0.7 * first.loss);
      expect(last.boxLoss, net).toBeLessThan(first.boxLoss);
      // Three of four (P) or every second (R, O) of the classified samples are background.
      expect(last.accuracy, net).toBeGreaterThan(0.9);
    }
    expect(figures!.detections![20].recall).toBeGreaterThan(0.4);
    expect(await readFile(report!, 'utf8')).toContain('O-Net, loss by task');
    const weights = await openWeights([file!]);
    expect(weights.metadata).toMatchObject({
      net: 'mtcnn',
      config: { thresholds: [0.6, 0.1, 0.8], secondLook: true, voteBoxes: true },
    });
    const detector = Mtcnn.create(gpu, weights);
    await detector.destroy();
    await expect(trainMtcnn(gpu, data, options('run'))).rejects.toThrow('--resume');
    await expect(trainMtcnn(gpu, data, { ...options('run'), seed: 2, resume: true })).rejects.toThrow(
      'holds another run: seed differs',
    );
    const fewer = { ...data, pictures: data.pictures.slice(1) };
    await expect(trainMtcnn(gpu, fewer, { ...options('run'), resume: true })).rejects.toThrow(
      'holds another run: data differs',
    );
    await writeFile(path.join(folder, 'run', 'run.json'), '{"seed":');
    await expect(trainMtcnn(gpu, data, { ...options('run'), resume: true })).rejects.toThrow(
      'run.json is damaged',
    );
  }, 400_000);

  it('goes on where it was stopped, to the same weights', async () => {
    const gpu = await sharedGpu();
    const short = (out: string): RecipeOptions => {
      const o = options(out);
      return {
        ...o,
        nets: ['pnet'],
        saveEvery: 7,
        stages: { ...o.stages, pnet: { batch: 32, steps: 24, rate: 1e-3 } },
      };
    };
    await trainMtcnn(gpu, data, short('whole'));
    const controller = new AbortController();
    const stopped = trainMtcnn(
      gpu,
      data,
      { ...short('stopped'), signal: controller.signal },
      { progress: (what, done) => what === 'pnet' && done >= 20 && controller.abort() },
    );
    await expect(stopped).rejects.toThrow(/abort/i);
    const notes: string[] = [];
    await trainMtcnn(gpu, data, { ...short('stopped'), resume: true }, { note: (line) => notes.push(line) });
    const done = (out: string) =>
      readFile(path.join(folder, out, 'pnet', 'done', 'checkpoint-000000024.wfr'));
    expect((await done('stopped')).equals(await done('whole'))).toBe(true);
    expect(notes.join()).toContain('rnet');
  }, 120_000);

  it('begins with the weights that it is given, or says what they lack', async () => {
    const gpu = await sharedGpu();
    const still = (out: string, state: StateDict, hash = 'some'): RecipeOptions => {
      const o = options(out);
      // At next to no rate the weights stay as they were given.
      const stages = { ...o.stages, pnet: { batch: 32, steps: 2, rate: 1e-12 } };
      return { ...o, nets: ['pnet'], init: { state, hash }, stages, validate: 0 };
    };
    const init: StateDict = initialize(pnet([1, 12, 12, 3]), 5);
    await trainMtcnn(gpu, data, still('given', init));
    const { buffers } = await readCheckpoint(
      path.join(folder, 'given', 'pnet', 'done', 'checkpoint-000000002.wfr'),
    );
    expect(Object.keys(buffers).sort()).toEqual([...init.keys()].sort());
    for (const [name, { data: given }] of init) {
      const after = new Float32Array(buffers[name]);
      for (const [i, v] of given.entries()) expect(after[i], name).toBeCloseTo(v, 6);
    }
    await expect(trainMtcnn(gpu, data, { ...still('given', init, 'other'), resume: true })).rejects.toThrow(
      'first weights differs',
    );
    init.delete('pnet.conv2.bias');
    await expect(trainMtcnn(gpu, data, still('lacking', init))).rejects.toThrow('lack pnet.conv2.bias');
  }, 120_000);

  it('trains a later net alone behind those that it is given', async () => {
    const gpu = await sharedGpu();
    const alone = (out: string, init?: RecipeOptions['init']): RecipeOptions => {
      const o = options(out);
      const stages = { ...o.stages, rnet: { batch: 32, steps: 2, rate: 1e-3 } };
      return { ...o, nets: ['rnet'], init, stages, validate: 0, mineEvery: 4 };
    };
    await expect(trainMtcnn(gpu, data, alone('headless'))).rejects.toThrow(
      /rnet learns from what pnet proposes, and .*headless holds no pnet yet: train it first \(--only pnet/,
    );
    expect(existsSync(path.join(folder, 'headless'))).toBe(false);
    const state: StateDict = new Map(
      [pnet([1, 12, 12, 3]), rnet([1, 24, 24, 3]), onet([1, 48, 48, 3])].flatMap((net) => [
        ...initialize(net, 5),
      ]),
    );
    const { file } = await trainMtcnn(gpu, data, alone('behind', { state, hash: 'some' }));
    const written = (await openWeights([file!])).state;
    for (const [name, { data: given }] of state)
      if (name.startsWith('rnet.conv1')) expect(written.get(name)!.data).not.toEqual(given);
      else if (!name.startsWith('rnet.')) expect(written.get(name)!.data).toEqual(given);
  }, 120_000);
});
