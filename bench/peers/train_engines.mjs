// A training step of the same net in other engines: each takes wfr's training graph, the first weights in PyTorch's
// layouts and one batch, and gives back a function that makes one step (forward by the batch's statistics, loss,
// gradients of all trained weights, SGD with momentum and weight decay) and returns the loss before it. Gradients are
// the engine's own. Running averages of batch norm, which wfr's step updates too, are left out.

import { createRequire } from 'node:module';

/** Indirect, so that type checks and bundlers do not need what is installed on demand. @param {string} name */
const load = (name) => import(name);

/**
 * @typedef {import('../../src/graph/graph.js').Graph} Graph
 * @typedef {import('../../src/graph/graph.js').Node} Node
 * @typedef {import('../../src/graph/parameters.js').ParameterValues} ParameterValues
 * @typedef {object} Training
 * @property {Graph} graph built for training, with inputs `x` and `labels` and output `loss`
 * @property {ParameterValues} values
 * @property {Float32Array} x [N, H, W, C]
 * @property {Uint32Array} labels [N]
 * @property {ReadonlyMap<string, number>} decay the trained weights and the weight decay of each
 * @property {number} momentum
 * @property {number} learningRate
 * @typedef {() => Promise<number>} Step the loss before the update
 */

/** Nodes of the weights that are trained, with their first values. @param {Training} training */
function trainedWeights({ graph, values, decay }) {
  return graph.nodes
    .filter((n) => n.op === 'parameter' && decay.has(/** @type {string} */ (n.name)))
    .map((n) => {
      const name = /** @type {string} */ (n.name);
      const value = values.get(name);
      if (!value) throw new Error(`no weight ${name}`);
      return { node: n, name, data: Float32Array.from(value.data), decay: decay.get(name) ?? 0 };
    });
}

/** Pictures of the logits, classes. @param {Graph} graph @returns {readonly number[]} */
const logitsShape = (graph) =>
  graph.node(graph.node(/** @type {number} */ (graph.outputs.get('loss'))).inputs[0]).shape;

/** @param {Training} training @returns {Float32Array} [N, classes] */
function oneHot({ graph, labels }) {
  const [rows, classes] = logitsShape(graph);
  const hot = new Float32Array(rows * classes);
  labels.forEach((label, row) => {
    hot[row * classes + label] = 1;
  });
  return hot;
}

/** Both engines' walks flatten maps in this order only. @param {string | undefined} order */
function onlyChw(order) {
  if (order !== undefined && order !== 'chw') throw new Error(`flatten in the order ${order} is not written`);
}

/**
 * Values of all nodes up to the loss.
 * @param {Graph} graph
 * @param {Map<number, any>} t values of inputs and weights, to which the others are added
 * @param {Record<string, (node: Node, ...inputs: any[]) => any>} ops
 */
function evaluate(graph, t, ops) {
  for (const node of graph.nodes) {
    if (node.op === 'input' || node.op === 'parameter') continue;
    const op = ops[node.op];
    if (!op) throw new Error(`${node.op} is not written for this engine`);
    t.set(node.id, op(node, ...node.inputs.map((id) => t.get(id))));
  }
  return t.get(/** @type {number} */ (graph.outputs.get('loss')));
}

/** @param {Graph} graph @param {string} name */
const inputId = (graph, name) =>
  /** @type {Node} */ (graph.nodes.find((n) => n.op === 'input' && n.name === name)).id;

/** @param {Training} training @returns {Promise<Step>} */
export async function tfjs(training) {
  const load = createRequire(import.meta.url);
  const tf = load('@tensorflow/tfjs-core');
  // The package's own bundle leaves out the gradients, and the file that adds them is an ES module not marked as one:
  // tsx, which runs the benches, can require it.
  load('@tensorflow/tfjs-core/dist/register_all_gradients.js');
  load('@tensorflow/tfjs-backend-webgpu');
  await tf.setBackend('webgpu');
  await tf.ready();
  const { graph } = training;
  const depthwise = new Set(
    graph.nodes
      .filter((n) => n.op === 'conv2d' && n.attributes.groups === graph.node(n.inputs[0]).shape[3])
      .map((n) => n.inputs[1]),
  );
  // Filters HWIO (depthwise HWCM), dense weights [I, O].
  const weights = trainedWeights(training).map((w) => {
    const first = tf.tidy(() => {
      const raw = tf.tensor(w.data, w.node.shape);
      if (w.node.shape.length === 4)
        return tf.transpose(raw, depthwise.has(w.node.id) ? [2, 3, 0, 1] : [2, 3, 1, 0]);
      return w.node.shape.length === 2 ? tf.transpose(raw) : raw;
    });
    const variable = tf.variable(first, true, w.name);
    first.dispose();
    return { ...w, variable };
  });
  const x = tf.tensor(training.x, graph.node(inputId(graph, 'x')).shape);
  const hot = tf.tensor(oneHot(training), logitsShape(graph));

  /** @param {any} y */
  const flat = (y) => tf.reshape(tf.transpose(y, [0, 3, 1, 2]), [y.shape[0], -1]);
  /** @type {Record<string, (node: Node, ...inputs: any[]) => any>} */
  const ops = {
    conv2d({ attributes: { stride, padding, groups = 1 }, inputs }, v, filter, bias) {
      let y;
      if (groups === 1) y = tf.conv2d(v, filter, stride, padding);
      else if (depthwise.has(inputs[1])) y = tf.depthwiseConv2d(v, filter, stride, padding);
      else {
        // No grouped convolution here: one a group.
        const filters = tf.split(filter, groups, 3);
        const parts = tf.split(v, groups, 3);
        y = tf.concat(
          parts.map((/** @type {any} */ part, /** @type {number} */ i) =>
            tf.conv2d(part, filters[i], stride, padding),
          ),
          3,
        );
      }
      return bias ? tf.add(y, bias) : y;
    },
    batchNormStatistics: (_, v) => tf.moments(v, v.shape.length === 4 ? [0, 1, 2] : [0]),
    batchNormApply: ({ inputs }, v, { mean, variance }, gamma, beta) =>
      tf.batchNorm(v, mean, variance, beta, gamma, graph.node(inputs[1]).attributes.eps),
    prelu: (_, v, slope) => tf.prelu(v, slope),
    relu: (_, v) => tf.relu(v),
    add: (_, a, b) => tf.add(a, b),
    dense({ inputs }, v, weight, bias) {
      onlyChw(graph.node(inputs[1]).attributes.flatten?.order);
      const y = tf.matMul(v.shape.length === 4 ? flat(v) : v, weight);
      return bias ? tf.add(y, bias) : y;
    },
    flatten({ attributes }, v) {
      onlyChw(attributes.order);
      return flat(v);
    },
    softmaxCrossEntropy: (_, logits) => tf.losses.softmaxCrossEntropy(hot, logits),
  };
  const forward = () =>
    evaluate(
      graph,
      new Map([
        [inputId(graph, 'x'), x],
        ...weights.map((w) => /** @type {const} */ ([w.node.id, w.variable])),
      ]),
      ops,
    );
  const optimizer = tf.train.momentum(training.learningRate, training.momentum);
  return async () => {
    const loss = tf.tidy(() => {
      const { value, grads } = tf.variableGrads(
        forward,
        weights.map((w) => w.variable),
      );
      for (const { name, variable, decay } of weights)
        if (decay > 0) grads[name] = tf.add(grads[name], tf.mul(variable, decay));
      optimizer.applyGradients(grads);
      return value;
    });
    const [value] = await loss.data();
    loss.dispose();
    return value;
  };
}

/** @param {Training} training @returns {Promise<Step>} */
export async function jax(training) {
  const { defaultDevice, init, jit, lax, nn, numpy: np, valueAndGrad } = await load('@jax-js/jax');
  await init('webgpu');
  defaultDevice('webgpu');
  const { graph, learningRate, momentum } = training;
  const weights = trainedWeights(training);
  /** @param {Float32Array} data @param {readonly number[]} shape */
  const array = (data, shape) => np.array(data).reshape([...shape]);
  const x = array(training.x, graph.node(inputId(graph, 'x')).shape).transpose([0, 3, 1, 2]);
  const hot = array(oneHot(training), logitsShape(graph));

  // A use consumes an array unless it goes through .ref. Maps are [N, C, H, W], their vectors stand over [C, 1, 1].
  /** @param {any} v @param {any} y */
  const over = (v, y) => v.ref.reshape(y.ndim === 4 ? [1, -1, 1, 1] : [1, -1]);
  /**
   * Convolution in groups with a stride, by one without: stride² neighbours become channels of their group, and the filter
   * is filled up with zeros. jax-js 0.1.25 gives wrong gradients of the input of the former (finite differences say so).
   * @param {any} v @param {any} filter @param {number} stride @param {number} padding @param {number} groups
   */
  const stridedGroups = (v, filter, stride, padding, groups) => {
    /** @param {any} t @param {number} before what to fill up the sides with, in front; behind up to whole strides */
    const folded = (t, before) => {
      const [n, c, ...sides] = t.shape;
      const parts = sides.map((/** @type {number} */ side) => Math.ceil((side + 2 * before) / stride));
      const fill = sides.map((/** @type {number} */ side, /** @type {number} */ i) => [
        before,
        parts[i] * stride - side - before,
      ]);
      return np
        .pad(t, [[0, 0], [0, 0], ...fill])
        .reshape([n, c, parts[0], stride, parts[1], stride])
        .transpose([0, 1, 3, 5, 2, 4])
        .reshape([n, c * stride * stride, ...parts]);
    };
    const out = [2, 3].map((i) => Math.floor((v.shape[i] + 2 * padding - filter.shape[i]) / stride) + 1);
    const y = lax.convGeneralDilated(folded(v, padding), folded(filter, 0), [1, 1], 'VALID', {
      featureGroupCount: groups,
    });
    // Filling up may have made room for one place more.
    return y.shape[2] === out[0] && y.shape[3] === out[1] ? y : y.slice([], [], [0, out[0]], [0, out[1]]);
  };
  /** @type {Record<string, (node: Node, ...inputs: any[]) => any>} */
  const ops = {
    conv2d({ attributes: { stride = 1, padding = 0, groups = 1 } }, v, filter, bias) {
      let y;
      if (groups > 1 && stride > 1) y = stridedGroups(v.ref, filter.ref, stride, padding, groups);
      else {
        const pads = [padding, padding];
        const options = { featureGroupCount: groups };
        y = lax.convGeneralDilated(v.ref, filter.ref, [stride, stride], [pads, pads], options);
      }
      return bias ? y.add(over(bias, y)) : y;
    },
    batchNormStatistics(_, v) {
      const axes = v.ndim === 4 ? [0, 2, 3] : [0];
      const mean = np.mean(v.ref, axes, { keepdims: true });
      const variance = np.mean(np.square(v.ref.sub(mean.ref)), axes, { keepdims: true });
      return { mean, variance };
    },
    batchNormApply({ inputs }, v, { mean, variance }, gamma, beta) {
      const { eps } = graph.node(inputs[1]).attributes;
      const scale = over(gamma, v).div(np.sqrt(variance.ref.add(eps)));
      return v.ref.sub(mean.ref).mul(scale).add(over(beta, v));
    },
    prelu: (_, v, slope) => np.maximum(v.ref, 0).add(np.minimum(v.ref, 0).mul(over(slope, v))),
    relu: (_, v) => nn.relu(v.ref),
    add: (_, a, b) => a.ref.add(b.ref),
    dense({ inputs }, v, weight, bias) {
      onlyChw(graph.node(inputs[1]).attributes.flatten?.order);
      const y = np.matmul(v.ndim === 4 ? v.ref.reshape([v.shape[0], -1]) : v.ref, weight.ref.transpose());
      return bias ? y.add(over(bias, y)) : y;
    },
    flatten({ attributes }, v) {
      onlyChw(attributes.order);
      return v.ref.reshape([v.shape[0], -1]);
    },
    softmaxCrossEntropy: (_, logits, target) =>
      nn
        .logSoftmax(logits.ref, 1)
        .mul(target.ref)
        .sum()
        .mul(-1 / logits.shape[0]),
  };
  /** @param {any[]} list @param {any} pictures @param {any} target */
  const lossOf = (list, pictures, target) =>
    evaluate(
      graph,
      new Map([
        [inputId(graph, 'x'), pictures],
        [inputId(graph, 'labels'), target],
        ...weights.map((w, i) => /** @type {const} */ ([w.node.id, list[i]])),
      ]),
      ops,
    );
  /** @param {any[]} list @param {any[]} velocities @param {any} pictures @param {any} target */
  const update = (list, velocities, pictures, target) => {
    const [loss, gradients] = valueAndGrad(lossOf)(
      list.map((w) => w.ref),
      pictures,
      target,
    );
    const velocity = weights.map(({ decay }, i) => {
      const g = decay > 0 ? gradients[i].add(list[i].ref.mul(decay)) : gradients[i];
      return velocities[i].mul(momentum).add(g);
    });
    const next = weights.map((_, i) => list[i].sub(velocity[i].ref.mul(learningRate)));
    return [loss, next, velocity];
  };
  const compiled = jit(update);
  let list = weights.map((w) => array(w.data, w.node.shape));
  let velocities = weights.map((w) => np.zeros([...w.node.shape]));
  return async () => {
    const [loss, next, velocity] = compiled(list, velocities, x.ref, hot.ref);
    [list, velocities] = [next, velocity];
    // All that the step computes is submitted before this read, so it waits for the update too.
    return (await loss.data())[0];
  };
}
