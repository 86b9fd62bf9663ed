/** The kernels' suites in a dedicated worker: asked for one by name, it runs it and tells how each test ended. */
import { type File, startTests, type Test, type VitestRunner } from '@vitest/runner';

const SUITES = {
  forward: () => import('../../kernels/forward.test.js'),
  conv2d: () => import('../../kernels/conv2d.test.js'),
  backward: () => import('../../kernels/backward.test.js'),
  conv2d_grad: () => import('../../kernels/conv2d_grad.test.js'),
  losses: () => import('../../kernels/losses.test.js'),
};

/**
 * Left to the page: kernels of a card, which a software adapter compiles for seconds each, and tests of references
 * against references, which no adapter sees.
 */
const LEFT_OUT = /planned for a card|matrix units|TensorFlow|differences/;

export type Suite = keyof typeof SUITES;

export interface Outcome {
  place: string;
  passed: number;
  /** Name and message of every test that did not pass, but for those left out. */
  failed: string[];
}

const runner: VitestRunner = {
  pool: 'worker',
  config: {
    root: '/',
    name: undefined,
    setupFiles: [],
    passWithNoTests: false,
    testNamePattern: new RegExp(`^(?!.*(${LEFT_OUT.source}))`),
    allowOnly: false,
    sequence: { seed: 1, hooks: 'stack', setupFiles: 'list' },
    chaiConfig: undefined,
    maxConcurrency: 1,
    testTimeout: 180_000,
    hookTimeout: 60_000,
    retry: 0,
    includeTaskLocation: false,
    tags: [],
    tagsFilter: undefined,
    strictTags: false,
  },
  importFile: (name) => SUITES[name as Suite](),
};

/** Every test with its name, the names of the groups around it before. */
const testsOf = (tasks: File['tasks'], group = ''): [name: string, test: Test][] =>
  tasks.flatMap((task) => {
    const name = `${group}${task.name}`;
    return task.type === 'suite' ? testsOf(task.tasks, `${name} > `) : [[name, task]];
  });

addEventListener('message', async ({ data }: MessageEvent<Suite>) => {
  const [file] = await startTests([{ filepath: data }], runner);
  const failed = file.result?.errors?.map((e) => e.message) ?? [];
  let passed = 0;
  for (const [name, { result }] of testsOf(file.tasks)) {
    if (result?.state === 'pass') passed++;
    else if (!LEFT_OUT.test(name))
      failed.push(`${name}: ${result?.errors?.map((e) => e.message).join('; ') ?? 'did not run'}`);
  }
  postMessage({ place: globalThis.constructor.name, passed, failed } satisfies Outcome);
});
