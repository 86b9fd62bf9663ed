import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Face, Mtcnn } from '../../../src/face/detector.js';
import type { Embedder } from '../../../src/face/embedder.js';
import {
  type EmbedPicturesOptions,
  embedPictures,
  LFW_CENTRE,
} from '../../../src/face/verification/embed.node.js';
import { illustrate, misjudged } from '../../../src/face/verification/errors.node.js';
import { evaluate } from '../../../src/face/verification/protocol.js';
import { renderReport } from '../../../src/face/verification/report.js';
import { requireTwoFolds, scorePairs, testSetFromList } from '../../../src/face/verification/run.node.js';
import {
  DetectionStore,
  EmbeddingStore,
  embeddingKey,
  pictureHash,
} from '../../../src/face/verification/store.node.js';
import type { Gpu } from '../../../src/gpu/gpu.js';
import { encodePicture } from '../../../src/media/annotate.node.js';
import type { Picture } from '../../../src/media/picture.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'wfr-lfw-'));
  // Four people, three pictures each; a picture's red is its person, its green the picture.
  for (const [p, person] of ['Ann', 'Bea', 'Cy', 'Dee'].entries()) {
    await mkdir(path.join(folder, person));
    for (let i = 1; i <= 3; i++) {
      const size = person === 'Dee' ? 112 : 250;
      await writeFile(path.join(folder, person, `${person}_000${i}.png`), await flat(size, 60 * p, 10 * i));
    }
  }
  await writeFile(
    path.join(folder, 'pairs.txt'),
    '2\t2\nAnn\t1\t2\nBea\t1\t2\nAnn\t1\tBea\t1\nAnn\t2\tBea\t2\nCy\t1\t2\nDee\t1\t2\nCy\t1\tDee\t1\nCy\t2\tDee\t3\n',
  );
});
afterAll(() => rm(folder, { recursive: true }));

function flat(size: number, red: number, green: number): Promise<Uint8Array> {
  const data = new Uint8Array(size * size * 4);
  for (let i = 0; i < data.length; i += 4) data.set([red, green, 0, 255], i);
  return encodePicture({ width: size, height: size, data }, 'png');
}

const FACE: Face = {
  box: { x1: 70, y1: 70, x2: 180, y2: 190 },
  score: 0.99,
  landmarks: LFW_CENTRE.map(([x, y]) => [x * 250, y * 250]),
};

/** Stand-ins for the nets that tell people apart by colour, and count their calls. */
function fakes(faceless: (red: number) => boolean = () => false) {
  const calls = { detect: 0, embed: 0 };
  const uploads: Uint8Array[] = [];
  let live = 0;
  const gpu = {
    traits: { maxBindingBytes: 2 ** 27 },
    createStorage: (_bytes: number, _label: string, data: Uint8Array) => {
      live++;
      uploads.push(data);
      return { id: uploads.length };
    },
    destroyBuffer: () => void live--,
  } as unknown as Gpu;
  const unit = (red: number, green: number) => {
    const angle = red / 60 + green / 1000;
    return Float32Array.of(Math.cos(angle), Math.sin(angle));
  };
  const last = () => uploads[uploads.length - 1];
  const options = (
    extra: Partial<EmbedPicturesOptions> = {},
  ): Omit<EmbedPicturesOptions, 'detections' | 'embeddings'> => ({
    gpu: async () => gpu,
    detector: async () =>
      ({
        detect: async () => {
          calls.detect++;
          return faceless(last()[0]) ? [] : [FACE];
        },
      }) as unknown as Mtcnn,
    embedder: async () =>
      ({
        embed: async () => {
          calls.embed++;
          return [unit(last()[0], last()[1])];
        },
        embedAligned: async ([p]: Picture[]) => {
          calls.embed++;
          return [unit(p.data[0], p.data[1])];
        },
      }) as unknown as Embedder,
    noFace: 'centre',
    minFace: 40,
    ...extra,
  });
  return { calls, options, live: () => live };
}

describe('from a list to numbers', () => {
  it('embeds each picture once, keeps that, and judges the pairs', async () => {
    const set = await testSetFromList(path.join(folder, 'pairs.txt'), folder);
    expect(set.folds).toEqual([4, 4]);
    expect(set.pictures.length).toBe(9);
    const paths = [path.join(folder, 'cache/d.jsonl'), path.join(folder, 'cache/e.bin')];
    const stores = async () => ({
      detections: await DetectionStore.open(paths[0]),
      embeddings: await EmbeddingStore.open(paths[1], 2),
    });
    const first = fakes();
    const { embedded, timing } = await embedPictures(set.pictures, {
      ...first.options(),
      ...(await stores()),
    });
    // Dee's three pictures are aligned already: embedded, not detected.
    expect(first.calls).toEqual({ detect: 6, embed: 9 });
    expect(timing.count).toEqual({ decode: 9, detect: 6, embed: 9 });
    expect(first.live()).toBe(0);
    const scored = scorePairs(set, embedded, 'centre');
    expect(scored.treated.aligned.length).toBe(3);
    const result = evaluate(scored, scored.folds);
    expect(result.auc).toBe(1);
    expect(result.optimistic.accuracy).toBe(1);
    // cos 0.01 for the two pictures of a person, cos 1 for neighbours.
    expect(scored.distances[0]).toBeCloseTo(2 - 2 * Math.cos(0.01), 6);
    expect(scored.distances[2]).toBeCloseTo(2 - 2 * Math.cos(1), 6);

    const second = fakes();
    const again = await embedPictures(set.pictures, { ...second.options(), ...(await stores()) });
    expect(second.calls).toEqual({ detect: 0, embed: 0 });
    expect(again.timing.count).toEqual({ decode: 0, detect: 0, embed: 0 });
    expect(again.embedded).toEqual(embedded);
  });

  it('treats pictures without a face as it was told', async () => {
    const set = await testSetFromList(path.join(folder, 'pairs.txt'), folder);
    const bea = (red: number) => red === 60;
    const run = async (noFace: 'centre' | 'different' | 'exclude') => {
      const stores = {
        detections: await DetectionStore.open(),
        embeddings: await EmbeddingStore.open(undefined, 2),
      };
      const { embedded } = await embedPictures(set.pictures, {
        ...fakes(bea).options({ noFace }),
        ...stores,
      });
      return scorePairs(set, embedded, noFace);
    };
    expect((await run('centre')).treated.centre).toEqual(['Bea/Bea_0001.jpg', 'Bea/Bea_0002.jpg']);
    const different = await run('different');
    expect(different.treated.none.length).toBe(2);
    expect(different.distances[1]).toBe(4);
    expect(different.pairs.length).toBe(8);
    const excluded = await run('exclude');
    expect(excluded.folds).toEqual([1, 4]);
    expect(excluded.excluded.map((p) => p.place)).toEqual(['line 3', 'line 4', 'line 5']);
  });

  it('names the line of a missing picture, or goes on without it', async () => {
    const list = path.join(folder, 'missing.txt');
    await writeFile(
      list,
      'Ann/Ann_0001.jpg Ann/Ann_0002.jpg 1\nAnn/Ann_0001.jpg Zoe/Zoe_0001.jpg 0\nAnn/Ann_0001.jpg Cy/Cy_0001.jpg 0\n',
    );
    await expect(testSetFromList(list, folder)).rejects.toThrow(/line 2: there is no .*Zoe_0001\.jpg/);
    const set = await testSetFromList(list, folder, { skipMissing: true });
    expect(set.problems).toEqual([expect.stringContaining('line 2')]);
    const stores = {
      detections: await DetectionStore.open(),
      embeddings: await EmbeddingStore.open(undefined, 2),
    };
    const { embedded } = await embedPictures(set.pictures, { ...fakes().options(), ...stores });
    const scored = scorePairs(set, embedded, 'centre');
    expect(scored.excluded.map((p) => p.place)).toEqual(['line 2']);
    expect(scored.folds).toEqual([1, 1]);
  });

  it('an unreadable picture stops the run or is reported', async () => {
    const pictures = [{ id: 'broken.jpg', read: async () => Uint8Array.of(1, 2, 3) }];
    const stores = {
      detections: await DetectionStore.open(),
      embeddings: await EmbeddingStore.open(undefined, 2),
    };
    await expect(embedPictures(pictures, { ...fakes().options(), ...stores })).rejects.toThrow(
      /broken\.jpg: .*--skip-missing/,
    );
    const { embedded } = await embedPictures(pictures, {
      ...fakes().options({ skipMissing: true }),
      ...stores,
    });
    expect(embedded.get('broken.jpg')).toMatchObject({
      treatment: 'none',
      problem: expect.stringContaining('not a picture'),
    });
  });

  it('takes part of the folds and of the pairs', async () => {
    const list = path.join(folder, 'pairs.txt');
    expect((await testSetFromList(list, folder, { limit: 4 })).pairs.map((p) => p.same)).toEqual([
      true,
      false,
      true,
      false,
    ]);
    expect((await testSetFromList(list, folder, { folds: 1 })).folds).toEqual([4]);
    await expect(testSetFromList(list, folder, { folds: 3 })).rejects.toThrow(/first 3 folds.*has 2\./);
  });

  it('counts what remains before the long part', async () => {
    expect(requireTwoFolds(await testSetFromList(path.join(folder, 'pairs.txt'), folder))).toEqual({
      different: 4,
    });
    const list = path.join(folder, 'bad.txt');
    await writeFile(
      list,
      'nonsense\nAnn/Ann_0001.jpg Zoe/Zoe_0001.jpg 0\nAnn/Ann_0001.jpg Cy/Cy_0001.jpg 0\n',
    );
    const set = await testSetFromList(list, folder, { skipMissing: true });
    expect(() => requireTwoFolds(set)).toThrow(
      /^bad\.txt: too few pairs remain \(1, in 1 of 2 folds\).*Skipped:\n {2}bad\.txt, line 1: .*\n {2}.*line 2: there is no/s,
    );
  });

  it('a damaged cache counts as empty', async () => {
    const file = path.join(folder, 'damaged');
    await writeFile(file, 'no such thing\n\u0000\u0001');
    expect((await EmbeddingStore.open(file, 2)).size).toBe(0);
    expect((await DetectionStore.open(file)).size).toBe(0);
    const sha = pictureHash(Uint8Array.of(1));
    const store = await EmbeddingStore.open(file, 2);
    store.set(embeddingKey(sha, FACE.landmarks), Float32Array.of(0.6, 0.8));
    await store.save();
    const moved = FACE.landmarks.map(([x, y]) => [x + 0.01, y] as const);
    const back = await EmbeddingStore.open(file, 2);
    expect(back.get(embeddingKey(sha, FACE.landmarks))).toEqual(Float32Array.of(0.6, 0.8));
    expect(back.get(embeddingKey(sha, moved))).toBeUndefined();
    expect((await EmbeddingStore.open(file, 3)).size).toBe(0);
    await writeFile(file, (await readFile(file)).subarray(0, -3));
    expect((await EmbeddingStore.open(file, 2)).size).toBe(0);
  });

  it('shows the worst errors in a page that needs nothing else', async () => {
    const set = await testSetFromList(path.join(folder, 'pairs.txt'), folder);
    const stores = {
      detections: await DetectionStore.open(),
      embeddings: await EmbeddingStore.open(undefined, 2),
    };
    const { embedded } = await embedPictures(set.pictures, { ...fakes().options(), ...stores });
    // Turned round, so that everything is judged wrongly by a threshold from the other fold.
    const scored = scorePairs(set, embedded, 'centre');
    scored.distances = scored.distances.map((d, i) => (scored.same[i] ? 2 + i / 10 : d / 10));
    const result = evaluate(scored, scored.folds);
    const { rejects, accepts } = misjudged(scored, result);
    expect(rejects.map((e) => e.pair.place)).toEqual(['line 7', 'line 6', 'line 3', 'line 2']);
    expect(rejects.length + accepts.length).toBe(8 - Math.round(result.accuracy.mean * 8));
    const html = renderReport({
      title: 'A <title>',
      result,
      pairs: scored,
      falseRejects: await illustrate(rejects, set.pictures, embedded),
      falseAccepts: [],
      settings: [['pairs', 'pairs.txt']],
      notes: [{ summary: '1 thing', items: ['<b>'] }],
    });
    expect(html).toContain('A &#60;title&#62;');
    expect(html.match(/<img src="data:image\/jpeg;base64,/g)?.length).toBe(8);
    expect(html).not.toMatch(/<script|https?:|src="(?!data:)|@import|url\(/);
    expect(html).not.toMatch(/NaN|undefined|Infinity/);
  });
});
