/** The graph of a training step: a recogniser with its losses. */
import { WfrError } from '../gpu/errors.js';
import type { Graph, Node, Tensor } from '../graph/graph.js';
import type { ParameterValue } from '../graph/parameters.js';
import type { Margin } from '../kernels/margin_loss/margin.js';
import { initialize } from '../nets/initialize.js';
import type { Recogniser } from '../nets/registry.js';
import { UNLABELLED } from './data/source.js';
import { Random } from './random.js';

export interface Objective {
  /** Margin softmax over the identities, times `weight`. */
  identity?: {
    margin: Margin;
    weight: number;
    /** Share of the classes that a step looks at (Partial FC). Default 1. */
    sampleRate?: number;
  };
  /** Learning from a teacher: 1 − cosine, and how similarities inside the batch differ, squared, each with its weight. */
  distill?: { cosine: number; relation: number };
}

export interface ObjectiveSizes {
  batch: number;
  size: number;
  /** Identities. */
  classes: number;
  /** Length of the teacher's embeddings. */
  teacherDimension: number;
}

/** Parameters that serve training only begin so; they are not part of the net that is saved. */
export const HEAD = 'training.';

/** Most bytes of a chunk of class centres or logits: what every device can bind. */
const CHUNK_BYTES = 128 * 1024 * 1024;

/** Classes of each chunk. The same for batches of up to 512, so that another batch size fits the same weights. */
export function classChunks(classes: number, dimension: number, limit = CHUNK_BYTES): number[] {
  const most = Math.floor(limit / (4 * Math.max(dimension, 512)));
  const chunks: number[] = [];
  for (let rest = classes; rest > 0; rest -= most) chunks.push(Math.min(rest, most));
  return chunks;
}

/** How many classes a step looks at: the batch's own must fit. */
export function sampledClasses(objective: Objective, { batch, classes }: ObjectiveSizes): number | undefined {
  const rate = objective.identity?.sampleRate ?? 1;
  return rate < 1 ? Math.min(classes, Math.max(batch, Math.ceil(rate * classes))) : undefined;
}

/** The batch's own classes and others drawn at random, in rising order, and the labels as places among them. */
export function sampleClasses(
  labels: Uint32Array,
  classes: number,
  count: number,
  random: Random,
): { selection: Uint32Array; labels: Uint32Array } {
  const chosen = new Set([...labels].filter((y) => y < classes));
  // Robert Floyd's sampling would need no rejection, but the share is seldom above a half.
  while (chosen.size < count) chosen.add(random.below(classes));
  const selection = Uint32Array.from(chosen).sort();
  const place = new Map([...selection].map((c, i) => [c, i]));
  return { selection, labels: labels.map((y) => place.get(y) ?? UNLABELLED) };
}

/**
 * Inputs: x [N, size, size, 3]; labels [N] u32 and, where classes are sampled, `selection` [S] u32; teacher [N, T].
 * Outputs: loss [1]; identityRows [N, 4] and distillRows [N, 3] (see Graph.marginLoss and distillLoss).
 * @throws WfrError when there is nothing to learn from.
 */
export function trainingGraph(net: Recogniser, objective: Objective, sizes: ObjectiveSizes): Graph {
  const { batch, size, classes, teacherDimension } = sizes;
  const g = net.build([batch, size, size, net.channels], { training: true });
  const embedding: Tensor = { id: g.outputs.get('embedding')!, shape: [batch, net.dimension] };
  g.outputs.delete('embedding');
  let unit: Tensor | undefined;
  const unitOf = (): Tensor => {
    unit ??= g.l2Normalize(embedding);
    return unit;
  };
  const losses: Tensor[] = [];
  const { identity, distill } = objective;
  if (identity) {
    if (classes < 2)
      throw new WfrError(
        `A loss over identities needs at least two of them, the data has ${classes}: put each person's pictures into a folder of their own, or learn from a teacher alone (--distill, --loss none).`,
      );
    const labels = g.input('labels', [batch], 'u32');
    let weights = classChunks(classes, net.dimension).map((count, k) =>
      g.parameter(`${HEAD}classes.${k}.weight`, [count, net.dimension], 'dense'),
    );
    const sampled = sampledClasses(objective, sizes);
    if (sampled !== undefined) weights = [g.gatherClasses(g.input('selection', [sampled], 'u32'), weights)];
    const { loss, rows } = g.marginLoss(unitOf(), labels, weights, identity.margin);
    losses.push(identity.weight === 1 ? loss : g.scale(loss, identity.weight));
    g.output('identityRows', rows);
  }
  if (distill) {
    if (teacherDimension < 1)
      throw new WfrError('There is no teacher to learn from: give --distill FILE.npy.');
    const teacher = g.input('teacher', [batch, teacherDimension]);
    let student = unitOf();
    if (net.dimension !== teacherDimension) {
      // Compared through a projection that is thrown away; a vector of another length has no cosine with it.
      const weight = g.parameter(`${HEAD}projection.weight`, [teacherDimension, net.dimension], 'dense');
      student = g.l2Normalize(g.dense(embedding, weight));
    }
    const { loss, rows } = g.distillLoss(student, teacher, distill);
    losses.push(loss);
    g.output('distillRows', rows);
  }
  if (losses.length === 0) throw new WfrError('There is no loss: choose --loss, or a teacher by --distill.');
  g.output('loss', losses.length === 1 ? losses[0] : g.add2(losses[0], losses[1]));
  return g;
}

/** The parameters that are part of the net that is saved. */
export const netParameters = (g: Graph): Node[] =>
  g.nodes.filter(({ op, name }) => op === 'parameter' && !name!.startsWith(HEAD));

/**
 * First weights: the net's as initialize() makes them, class centres normal with deviation 0.01, then whatever of
 * `init` fits by name (resampled where it was trained at another input size).
 * @param initName what a message calls `init`.
 * @returns the values and the names that `init` did not have.
 * @throws WfrError when `init` has none of the net's filters, or a weight of another shape.
 */
export function initialWeights(
  g: Graph,
  seed: number,
  init?: ReadonlyMap<string, ParameterValue>,
  initName = 'The weights to begin with',
): { values: Map<string, ParameterValue>; missing: string[] } {
  const values = initialize(g, seed);
  for (const [name, { data }] of values) {
    if (!name.startsWith(`${HEAD}classes`)) continue;
    const random = Random.of(seed, name);
    for (let i = 0; i < data.length; i++) data[i] = 0.01 * random.normal();
  }
  if (!init) return { values, missing: [] };
  const parameters = netParameters(g);
  const filters = parameters.filter(({ shape }) => shape.length === 4);
  if (!filters.some(({ name }) => init.has(name!))) {
    const some = (names: readonly string[]) =>
      `${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''}`;
    throw new WfrError(
      `${initName} fits nothing of ${g.name}: the net needs ${some(filters.map(({ name }) => name!))}, and there are ${some([...init.keys()])}. Choose the --net that these weights are of.`,
    );
  }
  const missing: string[] = [];
  for (const { name, shape, attributes } of parameters) {
    const given = init.get(name!);
    if (!given) missing.push(name!);
    else values.set(name!, fitted(name!, given, shape, attributes.flatten?.map));
  }
  return { values, missing };
}

/**
 * A weight trained at another input size: a filter over the whole map, or a dense layer on the flattened map (C, H, W), is
 * resampled to the new map and scaled so that its sum stays.
 * @throws WfrError when the shapes differ in another way.
 */
function fitted(
  name: string,
  value: ParameterValue,
  shape: readonly number[],
  map: readonly number[] | undefined,
): ParameterValue {
  const isSame = value.shape.length === shape.length && value.shape.every((n, i) => n === shape[i]);
  if (isSame) return value;
  const [rows, ...rest] = value.shape;
  const isFilter =
    rest.length === 3 && rest[0] === 1 && shape.length === 4 && rows === shape[0] && shape[1] === 1;
  if (isFilter) return { shape, data: resample(value.data, rows, [rest[1], rest[2]], [shape[2], shape[3]]) };
  if (map && rest.length === 1 && rows === shape[0]) {
    const side = Math.sqrt(rest[0] / map[2]);
    if (Number.isInteger(side))
      return { shape, data: resample(value.data, rows * map[2], [side, side], [map[0], map[1]]) };
  }
  throw new WfrError(`Weight ${name} has shape [${value.shape}], the net needs [${shape}].`);
}

/** Planes of from[0] × from[1] to to[0] × to[1], bilinear between centres, times the ratio of their areas. */
function resample(
  data: Float32Array,
  planes: number,
  from: readonly [number, number],
  to: readonly [number, number],
): Float32Array {
  const out = new Float32Array(planes * to[0] * to[1]);
  const area = (from[0] * from[1]) / (to[0] * to[1]);
  const place = (i: number, a: number, b: number): [number, number, number] => {
    const at = Math.min(a - 1, Math.max(0, ((i + 0.5) * a) / b - 0.5));
    return [Math.floor(at), Math.min(a - 1, Math.floor(at) + 1), at - Math.floor(at)];
  };
  for (let p = 0; p < planes; p++) {
    const value = (y: number, x: number) => data[(p * from[0] + y) * from[1] + x];
    for (let y = 0; y < to[0]; y++) {
      const [y0, y1, t] = place(y, from[0], to[0]);
      for (let x = 0; x < to[1]; x++) {
        const [x0, x1, s] = place(x, from[1], to[1]);
        const above = value(y0, x0) * (1 - s) + value(y0, x1) * s;
        const below = value(y1, x0) * (1 - s) + value(y1, x1) * s;
        out[(p * to[0] + y) * to[1] + x] = area * (above * (1 - t) + below * t);
      }
    }
  }
  return out;
}
