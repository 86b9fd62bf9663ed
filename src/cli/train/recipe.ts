// From the flags of `wfr train` to a recipe.
import { WfrError } from '../../gpu/errors.js';
import type { Margin } from '../../kernels/margin_loss/margin.js';
import type { OptimizerConfig } from '../../kernels/optimizer/update.js';
import { MBF } from '../../nets/mobilefacenet.js';
import type { RecogniserDescription } from '../../nets/registry.js';
import type { Objective } from '../../train/objective.js';
import type { Recipe } from '../../train/recipe.js';
import type { SCHEDULES } from '../../train/schedule.js';

export const NETS = ['mobilefacenet', 'mbf', 'iresnet18', 'iresnet34', 'iresnet50', 'iresnet100'] as const;
export const LOSSES = ['arcface', 'cosface', 'softmax', 'combined', 'none'] as const;

export interface RecipeFlags {
  net: (typeof NETS)[number];
  embedding?: number;
  size: number;
  batch: number;
  epochs: number;
  lr?: number;
  optimizer: 'sgd' | 'adamw';
  momentum: number;
  nesterov?: boolean;
  weightDecay?: number;
  schedule: (typeof SCHEDULES)[number];
  warmup?: number;
  loss?: (typeof LOSSES)[number];
  margin?: string;
  scale: number;
  exactGradient?: boolean;
  gamma: number;
  sampleRate: number;
  identityWeight: number;
  distillWeight: number;
  relationWeight: number;
  curriculum?: Recipe['curriculum'];
  freeze?: string;
  clip: number;
  accumulate: number;
  ema?: number;
  precision: 'f32' | 'f16';
  recompute?: boolean;
  seed: number;
}

export function recipeOf(f: RecipeFlags, data: { identities: number; isTaught: boolean }): Recipe {
  const depth = /^iresnet(\d+)$/.exec(f.net)?.[1];
  const config: Record<string, unknown> = depth
    ? { depth: Number(depth) }
    : f.net === 'mbf'
      ? { ...MBF }
      : { embedding: 128 };
  if (f.embedding !== undefined) config.embedding = f.embedding;
  const description: RecogniserDescription = {
    config,
    input: { height: f.size, width: f.size },
    preprocessing: { mean: 127.5, scale: 1 / 127.5, order: 'rgb' },
  };
  const optimizer = optimizerOf(f);
  const warmupEpochs =
    f.warmup ?? (f.schedule === 'polynomial' || f.schedule === 'cosine' ? Math.min(1, f.epochs / 10) : 0);
  return {
    net: depth ? 'iresnet' : 'mobilefacenet',
    description,
    size: f.size,
    batch: f.batch,
    epochs: f.epochs,
    seed: f.seed,
    objective: objectiveOf(f, data),
    optimizer,
    schedule: { kind: f.schedule, rate: f.lr ?? defaultRate(f), warmupEpochs },
    clip: f.clip > 0 ? f.clip : undefined,
    accumulate: f.accumulate > 1 ? f.accumulate : undefined,
    ema: f.ema,
    precision: f.precision === 'f16' ? 'f16' : undefined,
    recompute: f.recompute,
    curriculum: f.curriculum,
    freeze: f.freeze === undefined ? undefined : prefixesOf(f.freeze),
  };
}

function prefixesOf(freeze: string): string[] {
  const prefixes = freeze.split(',').map((name) => name.trim());
  if (prefixes.includes(''))
    throw new WfrError(
      `--freeze ${freeze}: an empty name would freeze everything. Give names parted by commas: stem,dw,blocks.0.`,
    );
  return prefixes;
}

/** SGD: 0.1 for 1024 pictures a step, in proportion (arcface_torch). AdamW does not scale so. */
function defaultRate({ optimizer, batch, accumulate }: RecipeFlags): number {
  return optimizer === 'sgd' ? (0.1 * batch * accumulate) / 1024 : 1e-3;
}

function optimizerOf({ optimizer, momentum, nesterov, weightDecay }: RecipeFlags): OptimizerConfig {
  if (nesterov && (optimizer !== 'sgd' || momentum === 0))
    throw new WfrError('--nesterov needs --optimizer sgd with a --momentum above 0.');
  return optimizer === 'sgd'
    ? { kind: 'sgd', momentum, ...(nesterov && { nesterov }), weightDecay: weightDecay ?? 5e-4 }
    : { kind: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: weightDecay ?? 0.01 };
}

function objectiveOf(
  f: RecipeFlags,
  { identities, isTaught }: { identities: number; isTaught: boolean },
): Objective {
  const objective: Objective = {};
  const loss = f.loss ?? (isTaught ? 'none' : 'arcface');
  if (loss !== 'none' && identities < 2)
    throw new WfrError(
      `The data shows ${identities === 1 ? 'one person' : 'nobody by name'}: at least two people are needed to tell apart, each with a folder of pictures (or a name in index.csv). Without names, learn from a teacher (--distill FILE.npy${f.loss && isTaught ? ' with --loss none' : ''}).`,
    );
  if (loss === 'none' && !isTaught)
    throw new WfrError('--loss none leaves nothing to learn from but a teacher: give --distill FILE.npy.');
  if (loss !== 'none')
    objective.identity = {
      margin: marginOf(loss, f),
      weight: f.identityWeight,
      sampleRate: f.sampleRate < 1 ? f.sampleRate : undefined,
    };
  if (isTaught) objective.distill = { cosine: f.distillWeight, relation: f.relationWeight };
  return objective;
}

/** Radians of ArcFace's angle, and cosines that CosFace takes away. */
const LARGEST = { m2: Math.PI, m3: 1 };

function marginOf(loss: Exclude<RecipeFlags['loss'], 'none' | undefined>, f: RecipeFlags): Margin {
  const fail = (why: string) => new WfrError(`--margin ${f.margin}: ${why}`);
  const given = f.margin?.split(',').map((m) => (m.trim() === '' ? Number.NaN : Number(m)));
  if (given?.some((m) => !Number.isFinite(m) || m < 0))
    throw fail('give a number of at least 0, or three for --loss combined: 1,0.3,0.2.');
  const one = (usual: number): number => {
    if (given && given.length !== 1) throw fail(`--loss ${loss} takes one number.`);
    return given?.[0] ?? usual;
  };
  const common = { scale: f.scale, exact: f.exactGradient ?? false, gamma: f.gamma };
  switch (loss) {
    case 'softmax':
      if (given) throw fail('--loss softmax has no margin. Choose arcface, cosface or combined.');
      return { m1: 1, m2: 0, m3: 0, ...common };
    case 'arcface': {
      const m2 = one(0.5);
      if (m2 >= LARGEST.m2)
        throw fail(
          'the margin of arcface is an angle in radians, from 0 and below π, for no angle to a row is larger than π; 0.2 to 0.5 is usual.',
        );
      return { m1: 1, m2, m3: 0, ...common };
    }
    case 'cosface': {
      const m3 = one(0.4);
      if (m3 > LARGEST.m3) throw fail(`the margin of cosface ${COSINE_RANGE}; 0.2 to 0.4 is usual.`);
      return { m1: 1, m2: 0, m3, ...common };
    }
    case 'combined': {
      const [m1, m2, m3] = given ?? [1, 0.3, 0.2];
      if (given && given.length !== 3) throw fail('--loss combined takes three numbers, m1,m2,m3.');
      if (m1 < 1 || m1 * Math.PI + m2 > 2 * Math.PI)
        throw fail('m1 must be at least 1 and m1·π + m2 at most 2π, or the margin would stop growing.');
      if (m3 > LARGEST.m3) throw fail(`m3 ${COSINE_RANGE}.`);
      return { m1, m2, m3, ...common };
    }
  }
}

const COSINE_RANGE =
  'is a difference of cosines, from 0 to 1: rows of many people are hardly more than 1 apart, and no picture could be nearer its own by more';
