import { batchNormBackward } from '../kernels/batchnorm/backward.js';
import { batchNormApply, batchNormStatistics, runningStatistics } from '../kernels/batchnorm/forward.js';
import { type DepthwiseStrip, stripStatistics } from '../kernels/conv2d/depthwise.js';
import { conv2dForward } from '../kernels/conv2d/forward.js';
import { conv2dGradInput } from '../kernels/conv2d/grad_input.js';
import { conv2dGradWeight } from '../kernels/conv2d/grad_weight.js';
import { normDepthwiseBackward } from '../kernels/conv2d/norm_depthwise.js';
import { planConv2d } from '../kernels/conv2d/plan.js';
import { pointwise, pointwiseStatistics, takesPointwise } from '../kernels/conv2d/pointwise.js';
import { dropout } from '../kernels/dropout/dropout.js';
import { activationBackward } from '../kernels/elementwise/backward.js';
import { scale } from '../kernels/elementwise/forward.js';
import { flattenBackward } from '../kernels/flatten/backward.js';
import { l2NormalizeBackward } from '../kernels/l2norm/backward.js';
import { crossEntropy, crossEntropyBackward } from '../kernels/loss/cross_entropy.js';
import { lossGradient } from '../kernels/loss/loss_gradient.js';
import { smoothL1, smoothL1Backward } from '../kernels/loss/smooth_l1.js';
import { type MtcnnLossCall, mtcnnLoss, mtcnnLossBackward } from '../kernels/mtcnn_loss/loss.js';
import { WORD } from '../kernels/optimizer/step_words.js';
import { packedLength } from '../kernels/packing.js';
import { avgPoolBackward, globalAvgPoolBackward } from '../kernels/pool/backward.js';
import { maxPoolBackward, maxPoolTraining, placesShape } from '../kernels/pool/max_training.js';
import { channelSum } from '../kernels/reduce/channel_sum.js';
import { softmaxBackward } from '../kernels/softmax/backward.js';
import type { Node } from './graph.js';
import { LOWERINGS, trainingStrip } from './lower.js';
import { LOSS_LOWERINGS } from './lower_losses.js';
import { convolutionShape, denseShape, type LowerContext, type Lowering, window } from './lowering.js';

/** Operands of a node's inputs, in order. */
const operands = <R>(node: Node, c: LowerContext<R>) => node.inputs.map((id) => c.operand(id));

const gradInput =
  (geometry: (node: Node, c: LowerContext<unknown>) => ReturnType<typeof denseShape>): Lowering =>
  (n, c) =>
    conv2dGradInput(
      {
        shape: geometry(n, c as LowerContext<unknown>),
        dy: c.operand(n.inputs[0]),
        weight: c.parameter(n.inputs[1], 'f32'),
        dx: c.operand(n.id),
        extra: n.attributes.hasExtra ? c.operand(n.inputs[2]) : undefined,
        temporary: c.temporary,
      },
      c.traits,
    );

const gradWeight =
  (geometry: (node: Node, c: LowerContext<unknown>) => ReturnType<typeof denseShape>): Lowering =>
  (n, c) =>
    conv2dGradWeight(
      {
        shape: geometry(n, c as LowerContext<unknown>),
        x: c.operand(n.inputs[0]),
        dy: c.operand(n.inputs[1]),
        dw: c.operand(n.id).ref,
        temporary: c.temporary,
      },
      c.traits,
    );

/** The forward pass of a net's own layers, but for 1×1 filters in f32 by the kernel that shares its text with their gradient. */
const forward =
  (
    own: Lowering,
    geometry: (node: Node, c: LowerContext<unknown>) => ReturnType<typeof denseShape>,
  ): Lowering =>
  (n, c) => {
    const s = geometry(n, c as LowerContext<unknown>);
    const halves = c.precision === 'f16' && n.op === 'conv2d';
    const { activation = 'none', hasBias } = n.attributes;
    if (halves || activation !== 'none' || !takesPointwise(s, s.outChannels, c.traits)) return own(n, c);
    const rows = s.batch * s.outHeight * s.outWidth;
    const statistics = c.isNormed(n.id)
      ? pointwiseStatistics(rows, s.outChannels, c.traits, c.temporary)
      : undefined;
    if (statistics) c.statistics.set(n.id, statistics);
    return pointwise(
      {
        label: 'conv2d.forward',
        x: { ...c.operand(n.inputs[0]), shape: [rows, s.inChannels] },
        weight: c.parameter(n.inputs[1], 'f32'),
        turned: false,
        bias: hasBias ? c.parameter(n.inputs[2], 'f32') : undefined,
        y: { ...c.operand(n.id), shape: [rows, s.outChannels] },
        statistics,
      },
      c.traits,
    );
  };

/** MTCNN's loss: logits, box, tasks, box target, points?, points target?, and in the backward pass two more. */
function multiTask<R>(n: Node, c: LowerContext<R>): MtcnnLossCall<R> {
  const [logits, box, , boxTarget] = n.inputs.slice(0, 4).map((id) => c.operand(id));
  const call = { logits, box, boxTarget, tasks: c.indices(n.inputs[2]) };
  const hasPoints = n.inputs.length - (n.op === 'mtcnnLossBackward' ? 2 : 0) === 6;
  if (!hasPoints) return call;
  return { ...call, points: c.operand(n.inputs[4]), pointsTarget: c.operand(n.inputs[5]) };
}

/** The kernels of losses, of the forward pass in training and of the backward pass. */
export const TRAINING_LOWERINGS = {
  ...LOSS_LOWERINGS,
  conv2d: forward(LOWERINGS.conv2d, (n, c) => {
    const [x, w] = n.inputs.map((id) => c.node(id).shape);
    return convolutionShape(x, w, n.shape, n.attributes);
  }),
  dense: forward(LOWERINGS.dense, (n, c) => {
    const [x, w] = n.inputs.map((id) => c.node(id).shape);
    return denseShape(x, w);
  }),
  batchNormStatistics: (n, c) => {
    const [x, weight, bias] = n.inputs;
    const channels = [n.shape[1]];
    return batchNormStatistics(
      {
        x: c.operand(x),
        known: c.statistics.get(x),
        weight: c.parameter(weight, 'f32'),
        bias: c.parameter(bias, 'f32'),
        eps: n.attributes.eps!,
        statistics: c.operand(n.id),
        batchMean: c.part(n.id, 0, channels),
        batchVariance: c.part(n.id, 1, channels),
        temporary: c.temporary,
      },
      c.traits,
    );
  },
  batchNormRunning: (n, c) => {
    const [weight, bias, mean, variance] = n.inputs.map((id) => c.parameter(id, 'f32'));
    const statistics = c.operand(n.id);
    return runningStatistics({ weight, bias, mean, variance, eps: n.attributes.eps!, statistics });
  },
  batchNormApply: (n, c) => {
    const { activation = 'none', hasResidual } = n.attributes;
    const slope = activation === 'prelu' ? c.parameter(n.inputs[4], 'f32') : undefined;
    const residual = hasResidual ? c.operand(n.inputs[n.inputs.length - 1]) : undefined;
    const [x, statistics] = n.inputs.slice(0, 2).map((id) => c.operand(id));
    return batchNormApply({ x, statistics, activation, slope, residual, y: c.operand(n.id) }, c.traits);
  },
  batchNormBackward: (n, c) => {
    const { activation = 'none', fixed, hasExtra } = n.attributes;
    const [x, dy, statistics] = n.inputs.slice(0, 3).map((id) => c.operand(id));
    const channels = [n.shape[n.shape.length - 1]];
    const prelu = activation === 'prelu';
    return batchNormBackward(
      {
        x,
        dy,
        statistics,
        activation,
        slope: prelu ? c.parameter(n.inputs[3], 'f32') : undefined,
        fixed: fixed ?? false,
        extra: hasExtra ? c.operand(n.inputs[n.inputs.length - 1]) : undefined,
        dx: c.operand(n.id),
        dWeight: c.part(n.id, 0, channels),
        dBias: c.part(n.id, 1, channels),
        dSlope: prelu ? c.part(n.id, 2, channels) : undefined,
        temporary: c.temporary,
      },
      c.traits,
    );
  },
  batchNormConv2d: (n, c) => {
    const [x, w] = [n.inputs[0], n.inputs[5]];
    const shape = convolutionShape(c.node(x).shape, c.node(w).shape, n.shape, n.attributes);
    const norm = { statistics: c.operand(n.inputs[1]).ref, slope: c.parameter(n.inputs[4], 'f32') };
    const plan = trainingStrip(planConv2d(shape, c.traits), c.traits);
    const statistics = c.isNormed(n.id)
      ? stripStatistics(shape, plan.tile as unknown as DepthwiseStrip, c.temporary)
      : undefined;
    if (statistics) c.statistics.set(n.id, statistics);
    return conv2dForward(
      {
        shape,
        x: c.operand(x),
        weight: c.parameter(w, 'f32'),
        activation: 'none',
        norm,
        y: c.operand(n.id),
        statistics,
      },
      plan,
      c.traits,
    );
  },
  batchNormConv2dBackward: (n, c) => {
    const [x, dy, statistics] = n.inputs.slice(0, 3).map((id) => c.operand(id));
    const [slope, weight] = n.inputs.slice(3).map((id) => c.parameter(id, 'f32'));
    const w = c.node(n.inputs[4]).shape;
    const channels = [n.shape[3]];
    return normDepthwiseBackward(
      {
        shape: convolutionShape(x.shape, w, dy.shape, n.attributes),
        x,
        dy,
        statistics,
        slope,
        weight,
        fixed: n.attributes.fixed ?? false,
        dx: c.operand(n.id),
        dNormWeight: c.part(n.id, 0, channels),
        dNormBias: c.part(n.id, 1, channels),
        dSlope: c.part(n.id, 2, channels),
        dWeight: c.part(n.id, 3, [packedLength(w, 'depthwise')]),
        temporary: c.temporary,
      },
      c.traits,
    );
  },
  preluBackward: (n, c) =>
    activationBackward(
      {
        x: c.operand(n.inputs[0]),
        dy: c.operand(n.inputs[1]),
        slope: c.parameter(n.inputs[2], 'f32'),
        dx: c.operand(n.id),
        dSlope: c.part(n.id, 0, [n.shape[n.shape.length - 1]]),
        temporary: c.temporary,
      },
      c.traits,
    ),
  reluBackward: (n, c) => {
    const [x, dy] = operands(n, c);
    return activationBackward({ x, dy, dx: c.operand(n.id), temporary: c.temporary }, c.traits);
  },
  dropout: (n, c) =>
    dropout({
      x: c.operand(n.inputs[0]),
      rate: n.attributes.rate!,
      salt: n.attributes.salt!,
      step: c.step(),
      seedWord: WORD.seed,
      y: c.operand(n.id),
    }),
  scale: (n, c) => scale(c.operand(n.inputs[0]), n.attributes.value!, c.operand(n.id)),

  conv2dGradInput: gradInput((n, c) => {
    const [dy, w] = n.inputs.map((id) => c.node(id).shape);
    return convolutionShape(n.shape, w, dy, n.attributes);
  }),
  conv2dGradWeight: gradWeight((n, c) => {
    const [x, dy, w] = n.inputs.map((id) => c.node(id).shape);
    return convolutionShape(x, w, dy, n.attributes);
  }),
  denseGradInput: gradInput((n, c) => denseShape(n.shape, c.node(n.inputs[1]).shape)),
  denseGradWeight: gradWeight((n, c) => denseShape(c.node(n.inputs[0]).shape, c.node(n.inputs[2]).shape)),
  channelSum: (n, c) =>
    channelSum({ x: c.operand(n.inputs[0]), y: c.operand(n.id).ref, temporary: c.temporary }, c.traits),

  maxPool: (n, c) =>
    maxPoolTraining(
      {
        x: c.operand(n.inputs[0]),
        window: window(n),
        y: c.operand(n.id),
        places: c.part(n.id, 0, placesShape(n.shape)).ref,
        prelu:
          n.attributes.activation === 'prelu'
            ? { slope: c.parameter(n.inputs[1], 'f32'), kept: c.part(n.id, 1, n.shape) }
            : undefined,
      },
      c.traits,
    ),
  maxPoolBackward: (n, c) => {
    const [places, dy] = operands(n, c);
    return maxPoolBackward({ dy, places: places.ref, window: window(n), dx: c.operand(n.id) }, c.traits);
  },
  avgPoolBackward: (n, c) => avgPoolBackward(c.operand(n.inputs[0]), c.operand(n.id), window(n)),
  globalAvgPoolBackward: (n, c) => globalAvgPoolBackward(c.operand(n.inputs[0]), c.operand(n.id)),
  softmaxBackward: (n, c) => {
    const [y, dy] = operands(n, c);
    return softmaxBackward(y, dy, c.operand(n.id));
  },
  l2NormalizeBackward: (n, c) => {
    const [x, dy] = operands(n, c);
    return l2NormalizeBackward(x, dy, n.attributes.eps!, c.operand(n.id));
  },
  flattenBackward: (n, c) => flattenBackward(c.operand(n.inputs[0]), n.attributes.order!, c.operand(n.id)),

  softmaxCrossEntropy: (n, c) =>
    crossEntropy(
      { logits: c.operand(n.inputs[0]), labels: c.indices(n.inputs[1]), temporary: c.temporary },
      c.operand(n.id),
    ),
  softmaxCrossEntropyBackward: (n, c) =>
    crossEntropyBackward(
      { logits: c.operand(n.inputs[0]), labels: c.indices(n.inputs[1]), temporary: c.temporary },
      c.operand(n.inputs[2]),
      c.operand(n.id),
    ),
  mtcnnLoss: (n, c) =>
    mtcnnLoss(multiTask(n, c), n.attributes.multiTask!, {
      loss: c.operand(n.id),
      rows: c.part(n.id, 0, [c.node(n.inputs[0]).shape[0], 4]),
      shares: c.part(n.id, 1, [c.node(n.inputs[0]).shape[0], 4]),
    }),
  mtcnnLossBackward: (n, c) => {
    const [shares, dLoss] = n.inputs.slice(-2).map((id) => c.operand(id));
    const call = multiTask(n, c);
    return mtcnnLossBackward(call, n.attributes.multiTask!, shares, dLoss, {
      logits: c.operand(n.id),
      box: c.part(n.id, 0, call.box.shape),
      points: call.points && c.part(n.id, 1, call.points.shape),
    });
  },
  smoothL1: (n, c) => {
    const [x, target] = operands(n, c);
    return smoothL1(x, target, n.attributes.beta!, c.operand(n.id), c.temporary);
  },
  smoothL1Backward: (n, c) => {
    const [x, target, dLoss] = operands(n, c);
    return smoothL1Backward(x, target, n.attributes.beta!, dLoss, c.operand(n.id));
  },
  lossGradient: (n, c) => lossGradient(c.step(), c.operand(n.id)),
} satisfies Record<string, Lowering>;
