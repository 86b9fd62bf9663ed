// npx tsx bench/peers_train.ts [--net mobilefacenet,iresnet50] [--batch 16] [--size 112] [--runs 3]
//                              [--engines wfr,jax-js,tfjs]
// npm run bench -- --peers --train [--only mobilefacenet] [--batch 16] [--runs 3] [--engines …]     the same at 112×112
//
// A training step of the same net in other engines on the same adapter: forward with batch norm by the batch's statistics,
// softmax cross-entropy over 100 classes, gradients of all weights, SGD with momentum and weight decay, from the same
// first weights and on the same pictures. Each engine has a process of its own, so that its memory is its own and a
// crash takes nobody along; all stay open, and the steps go in turn, so that whatever else the machine does falls on
// all alike. `wfr f16` stores the maps of the forward pass as halves. Polls of Dawn's Node binding are spaced for everybody
// (src/gpu/polling.node.ts).
//
// One JSON line an engine: median wall time of a step, processor time over the number of cores, the first step with
// loading and compilation, GFLOP/s by wfr's count of operations, peak resident memory of the process (on a software
// adapter that is all memory; a card's own is not in it), and the losses of the first three steps. Where these are
// not wfr's, within a thousandth, the line says that it measures something else. All engines open at once need
// their memory together: name fewer --engines where that is too much.
import { type ChildProcess, fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { openGpu } from '../src/gpu/gpu.js';
import { planTraining } from '../src/graph/training.js';
import { measureFmaRate } from '../src/kernels/probe/measure.js';
import { TRAINABLE, TRAINED, trainingGraph } from './nets.js';
import { benchArgs, countOf, enginesOf, namesOf } from './options.js';
import { installPeers } from './peers_setup.js';
import type { Answer, StepReport } from './peers_train_child.js';
import { adapterName, emit, median, round } from './shared.js';

const ENGINES = ['wfr f32', 'wfr f16', 'jax-js webgpu', 'tfjs webgpu'];
const COMPARED = 3;
const TOLERANCE = 1e-3;

interface Options {
  nets: readonly string[];
  batch: number;
  side: number;
  engines?: readonly string[];
  /** Steps that count, after the first. */
  runs: number;
}

export async function benchTrainingPeers(options: Options): Promise<void> {
  const { nets, batch, side, engines, runs } = options;
  if (!(batch >= 2))
    throw new Error(`--batch ${batch}: batch norm of the embedding needs two pictures or more`);
  if (!(runs >= COMPARED - 1))
    throw new Error(`--runs ${runs}: the losses of ${COMPARED} steps are compared, so 2 or more`);
  const wanted = enginesOf(engines, ENGINES);
  if (wanted.some((e) => !e.startsWith('wfr'))) installPeers();
  const gpu = await openGpu();
  const flops = nets.map(
    (net) => planTraining(gpu, trainingGraph(net, batch, side), 'loss', TRAINABLE).flops,
  );
  gpu.close();
  for (const [i, net] of nets.entries()) {
    const rows = await takeTurns(wanted, net, options);
    const reference = rows.find((r) => !r.failed);
    for (const row of rows) report(row, reference, { net, batch, size: side }, flops[i]);
  }
}

interface Row {
  engine: string;
  steps: StepReport[];
  failed?: string;
}

/** Step after step, in each of them one engine after the other. */
async function takeTurns(
  engines: readonly string[],
  net: string,
  { batch, side, runs }: Options,
): Promise<Row[]> {
  const program = path.join(import.meta.dirname, 'peers_train_child.ts');
  const rows = engines.map((engine) => ({
    row: { engine, steps: [] } as Row,
    // What engines print must not get between the JSON lines.
    child: fork(program, [engine, net, `${batch}`, `${side}`], { stdio: ['ignore', 2, 2, 'ipc'] }),
  }));
  const take = (row: Row, answer: Answer) => {
    if (answer === 'ready') return;
    if ('failed' in answer) row.failed = answer.failed;
    else row.steps.push(answer);
  };
  try {
    // Nobody's first step beside the others' start.
    const begun = await Promise.all(rows.map((r) => nextAnswer(r.child)));
    for (const [i, answer] of begun.entries()) take(rows[i].row, answer);
    for (let i = 0; i <= runs; i++) {
      for (const { row, child } of rows) {
        if (row.failed) continue;
        // That it cannot be sent to is heard from its end.
        child.send('step', () => {});
        take(row, await nextAnswer(child));
        if (row.failed) child.kill();
      }
    }
  } finally {
    for (const { child } of rows) child.kill();
  }
  return rows.map((r) => r.row);
}

function nextAnswer(child: ChildProcess): Promise<Answer> {
  return new Promise((resolve) => {
    const ended = (code: number | null, signal: string | null) =>
      resolve({ failed: `its process ended with ${signal ?? `status ${code}`}` });
    if (child.exitCode !== null || child.signalCode !== null) {
      ended(child.exitCode, child.signalCode);
      return;
    }
    child.once('exit', ended);
    child.once('message', (answer: Answer) => {
      child.off('exit', ended);
      resolve(answer);
    });
  });
}

function report(row: Row, reference: Row | undefined, net: object, flops: number): void {
  const common = { bench: 'peer.train', ...net, engine: row.engine };
  if (row.failed || !reference) {
    emit({ ...common, failed: row.failed });
    return;
  }
  const [first, ...timed] = row.steps;
  const losses = (r: Row) => r.steps.slice(0, COMPARED).map((s) => s.loss);
  const expected = losses(reference);
  const error = Math.max(
    ...losses(row).map((loss, i) => Math.abs(loss - expected[i]) / Math.abs(expected[i])),
  );
  const wall = (r: Row) => median(r.steps.slice(1).map((s) => s.ms));
  const ms = wall(row);
  emit({
    ...common,
    ms: round(ms),
    least_ms: round(Math.min(...timed.map((s) => s.ms))),
    processor_ms: round(median(timed.map((s) => s.cpuMs)) / availableParallelism()),
    gflops: round(flops / ms / 1e6, 2),
    first_ms: Math.round(first.ms),
    peak_mb: Math.round(Math.max(...row.steps.map((s) => s.peakBytes)) / 1e6),
    times_as_long: round(ms / wall(reference), 2),
    losses: losses(row).map((loss) => round(loss, 6)),
    loss_error: Number(error.toPrecision(2)),
    // Not !(… > …): a loss that is no number must not pass.
    ...(error <= TOLERANCE ? {} : { differs: `not the computation of ${reference.engine}: losses differ` }),
  });
}

if (process.argv[1] && path.resolve(process.argv[1]) === import.meta.filename) {
  const { values } = benchArgs(import.meta.filename, {
    options: {
      net: { type: 'string', default: 'mobilefacenet' },
      batch: { type: 'string', default: '16' },
      size: { type: 'string', default: '112' },
      runs: { type: 'string', default: '3' },
      engines: { type: 'string' },
    },
  });
  const gpu = await openGpu();
  const { gflops } = await measureFmaRate(gpu, 1);
  emit({
    bench: 'device',
    adapter: adapterName(gpu),
    fma_gflops: round(gflops),
    date: new Date().toISOString().slice(0, 10),
  });
  gpu.close();
  await benchTrainingPeers({
    nets: namesOf('net', values.net, Object.keys(TRAINED)),
    batch: countOf('batch', values.batch),
    side: countOf('size', values.size),
    engines: values.engines?.split(','),
    runs: countOf('runs', values.runs),
  });
}
