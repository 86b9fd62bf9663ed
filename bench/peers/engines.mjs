// The same net in other engines: each takes the graph after wfr's own folding of batch norm (so nobody pays for
// an op that wfr spares itself) and its weights in PyTorch's layouts, and gives back a function that runs one input
// [N, H, W, C] and returns the first output as a Float32Array. Bare imports here resolve to bench/peers/node_modules.

/** Indirect, so that type checks and bundlers do not need what is installed on demand. @param {string} name */
const load = (name) => import(name);

/**
 * @typedef {import('../../src/graph/graph.js').Graph} Graph
 * @typedef {import('../../src/graph/parameters.js').ParameterValues} ParameterValues
 * @typedef {{ graph: Graph, values: ParameterValues, onnx: Uint8Array, shape: readonly number[] }} Net
 * @typedef {{ run(x: Float32Array): Promise<Float32Array>, close(): void | Promise<void> }} Session
 */

/** @param {Net} net @param {number} id */
const parameter = (net, id) => {
  const { name, shape } = net.graph.node(id);
  const value = net.values.get(/** @type {string} */ (name));
  if (!value) throw new Error(`no weight ${name}`);
  return { data: value.data, shape };
};

/**
 * Operands of a convolution or dense layer in the order in which fusion appends them.
 * @param {import('../../src/graph/graph.js').Node} node
 */
function operandsOf({ attributes: a, inputs }) {
  let next = 2;
  return {
    x: inputs[0],
    weight: inputs[1],
    bias: a.hasBias ? inputs[next++] : undefined,
    slope: a.activation === 'prelu' ? inputs[next++] : undefined,
    residual: a.hasResidual ? inputs[next++] : undefined,
    affine: a.hasInputAffine ? [inputs[next++], inputs[next++]] : undefined,
  };
}

/** @param {'webgpu' | 'wasm'} backend @returns {Promise<(net: Net) => Promise<Session>>} */
export async function tfjs(backend) {
  const tf = await load('@tensorflow/tfjs-core');
  const module = await load(`@tensorflow/tfjs-backend-${backend}`);
  if (backend === 'wasm') {
    const { createRequire } = await import('node:module');
    const path = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm');
    module.setWasmPaths(`${path.slice(0, path.lastIndexOf('/'))}/`);
    module.setThreadsCount(2);
  }
  return async (net) => {
    await tf.setBackend(backend);
    await tf.ready();
    /** @type {Map<number, any>} */
    const weights = new Map();
    /** Filters become HWIO, vectors stay. @param {number} id @param {boolean} [depthwise] */
    const weight = (id, depthwise = false) => {
      let t = weights.get(id);
      if (!t) {
        const { data, shape } = parameter(net, id);
        // Kept: the first run makes them within a scope that frees what it made.
        t = tf.tidy(() => {
          const raw = tf.tensor(data, shape);
          if (shape.length === 4) return tf.transpose(raw, depthwise ? [2, 3, 0, 1] : [2, 3, 1, 0]);
          return shape.length === 2 ? tf.transpose(raw) : raw;
        });
        tf.keep(t);
        weights.set(id, t);
      }
      return t;
    };
    /** @param {any} v @param {ReturnType<typeof operandsOf>} o @param {Map<number, any>} t */
    const finish = (v, o, t) => {
      if (o.slope !== undefined) v = tf.prelu(v, weight(o.slope));
      return o.residual === undefined ? v : tf.add(v, t.get(o.residual));
    };
    /** @param {any} input */
    const forward = (input) => {
      /** @type {Map<number, any>} */
      const t = new Map();
      for (const node of net.graph.nodes) {
        const a = node.attributes;
        const x = t.get(node.inputs[0]);
        if (node.op === 'input') t.set(node.id, input);
        else if (node.op === 'conv2d') {
          const o = operandsOf(node);
          const from = o.affine ? tf.add(tf.mul(x, weight(o.affine[0])), weight(o.affine[1])) : x;
          const depthwise = a.groups !== 1;
          const options = {
            x: from,
            filter: weight(o.weight, depthwise),
            strides: a.stride,
            pad: a.padding,
            bias: o.bias === undefined ? undefined : weight(o.bias),
          };
          t.set(
            node.id,
            finish(depthwise ? tf.fused.depthwiseConv2d(options) : tf.fused.conv2d(options), o, t),
          );
        } else if (node.op === 'dense') {
          const o = operandsOf(node);
          const flat = x.shape.length === 4 ? tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [x.shape[0], -1]) : x;
          const y = tf.matMul(flat, weight(o.weight));
          t.set(node.id, finish(o.bias === undefined ? y : tf.add(y, weight(o.bias)), o, t));
        } else if (node.op === 'maxPool') {
          // No padding mode of tfjs is "ceil": what hangs over is filled with the lowest number first.
          const [, oh, ow] = node.shape;
          const [, h, w] = x.shape;
          const { stride = 1, kernel = 1 } = a;
          const [ph, pw] = [(oh - 1) * stride + kernel - h, (ow - 1) * stride + kernel - w];
          const padded =
            ph > 0 || pw > 0
              ? tf.pad(
                  x,
                  [
                    [0, 0],
                    [0, Math.max(0, ph)],
                    [0, Math.max(0, pw)],
                    [0, 0],
                  ],
                  -1e30,
                )
              : x;
          t.set(node.id, tf.maxPool(padded, kernel, stride, 'valid'));
        } else if (node.op === 'softmax') t.set(node.id, tf.softmax(x));
        else if (node.op === 'batchNorm') {
          const [gamma, beta, mean, variance] = node.inputs.slice(1).map((id) => weight(id));
          t.set(node.id, tf.batchNorm(x, mean, variance, beta, gamma, a.eps));
        } else if (node.op !== 'parameter') throw new Error(`tfjs: ${node.op}`);
      }
      return t.get([...net.graph.outputs.values()][0]);
    };
    return {
      async run(data) {
        // Both backends of tfjs share one global switch.
        await tf.setBackend(backend);
        const y = tf.tidy(() => forward(tf.tensor(data, net.shape)));
        const out = Float32Array.from(await y.data());
        y.dispose();
        return out;
      },
      close() {
        for (const w of weights.values()) w.dispose();
      },
    };
  };
}

/** @returns {Promise<(net: Net) => Promise<Session>>} */
export async function jax() {
  const { init, defaultDevice, jit, lax, nn, numpy: np } = await load('@jax-js/jax');
  await init('webgpu');
  defaultDevice('webgpu');
  return async (net) => {
    const ids = net.graph.nodes.filter((n) => n.op === 'parameter').map((n) => n.id);
    /** Vectors of a map stand over [C, 1, 1]. @type {Map<number, any>} */
    const weights = new Map(
      ids.map((id) => {
        const { data, shape } = parameter(net, id);
        return [id, np.array(Float32Array.from(data)).reshape([...shape])];
      }),
    );
    /** @param {any} input @param {any[]} list */
    const forward = (input, list) => {
      const w = new Map(ids.map((id, i) => [id, list[i]]));
      /** @type {Map<number, any>} */
      const t = new Map();
      /** @param {number} id @param {any} y */
      const vector = (id, y) =>
        y.ndim === 4 ? w.get(id).ref.reshape([1, -1, 1, 1]) : w.get(id).ref.reshape([1, -1]);
      /** @param {any} y @param {ReturnType<typeof operandsOf>} o */
      const finish = (y, o) => {
        if (o.bias !== undefined) y = y.add(vector(o.bias, y));
        if (o.slope !== undefined) y = np.maximum(y.ref, 0).add(np.minimum(y, 0).mul(vector(o.slope, y)));
        if (o.residual !== undefined) y = y.add(t.get(o.residual).ref);
        return y;
      };
      for (const node of net.graph.nodes) {
        const a = node.attributes;
        const x = t.get(node.inputs[0]);
        if (node.op === 'input') t.set(node.id, input.transpose([0, 3, 1, 2]));
        else if (node.op === 'conv2d') {
          const o = operandsOf(node);
          const from = o.affine ? x.ref.mul(vector(o.affine[0], x)).add(vector(o.affine[1], x)) : x.ref;
          const p = [a.padding, a.padding];
          const y = lax.convGeneralDilated(from, w.get(o.weight).ref, [a.stride, a.stride], [p, p], {
            featureGroupCount: a.groups,
          });
          t.set(node.id, finish(y, o));
        } else if (node.op === 'dense') {
          const o = operandsOf(node);
          const flat = x.ndim === 4 ? x.ref.reshape([x.shape[0], -1]) : x.ref;
          t.set(node.id, finish(np.matmul(flat, w.get(o.weight).ref.transpose()), o));
        } else if (node.op === 'maxPool') {
          const [, oh, ow] = node.shape;
          const [, , h, width] = x.shape;
          const over = [h, width].map((n, i) =>
            Math.max(0, ([oh, ow][i] - 1) * (a.stride ?? 1) + (a.kernel ?? 1) - n),
          );
          const padded = np.pad(
            x.ref,
            [
              [0, 0],
              [0, 0],
              [0, over[0]],
              [0, over[1]],
            ],
            { constantValues: -1e30 },
          );
          t.set(
            node.id,
            lax.reduceWindow(
              padded,
              (/** @type {any} */ v) => np.max(v),
              [1, 1, a.kernel, a.kernel],
              [1, 1, a.stride, a.stride],
            ),
          );
        } else if (node.op === 'softmax') t.set(node.id, nn.softmax(x.ref, 1));
        else if (node.op === 'batchNorm') {
          const [gamma, beta, mean, variance] = node.inputs.slice(1);
          const scale = vector(gamma, x).div(np.sqrt(vector(variance, x).add(a.eps)));
          t.set(node.id, x.ref.sub(vector(mean, x)).mul(scale).add(vector(beta, x)));
        } else if (node.op !== 'parameter') throw new Error(`jax-js: ${node.op}`);
      }
      const y = t.get([...net.graph.outputs.values()][0]);
      return y.ndim === 4 ? y.ref.transpose([0, 2, 3, 1]) : y.ref;
    };
    const compiled = jit(forward);
    return {
      async run(data) {
        const x = np.array(Float32Array.from(data)).reshape([...net.shape]);
        const y = compiled(
          x,
          ids.map((id) => weights.get(id).ref),
        );
        return Float32Array.from(await y.data());
      },
      close() {},
    };
  };
}

/** @param {'webgpu' | 'wasm'} provider @returns {Promise<(net: Net) => Promise<Session>>} */
export async function onnxruntime(provider) {
  const ort = await load(provider === 'wasm' ? 'onnxruntime-web' : 'onnxruntime-web/webgpu');
  if (provider === 'wasm') ort.env.wasm.numThreads = 2;
  ort.env.logLevel = 'error';
  return async (net) => {
    const session = await ort.InferenceSession.create(net.onnx, { executionProviders: [provider] });
    const [input] = session.inputNames;
    const [output] = session.outputNames;
    const [n, h, w, c] = net.shape;
    return {
      async run(data) {
        // Our export takes [N, C, H, W].
        const chw = new Float32Array(data.length);
        for (let b = 0; b < n; b++)
          for (let i = 0; i < h * w; i++)
            for (let k = 0; k < c; k++) chw[(b * c + k) * h * w + i] = data[(b * h * w + i) * c + k];
        const result = await session.run({ [input]: new ort.Tensor('float32', chw, [n, c, h, w]) }, [output]);
        const y = result[output];
        const values = await y.getData();
        if (y.dims.length !== 4) return Float32Array.from(values);
        const [, yc, yh, yw] = y.dims;
        return Float32Array.from({ length: values.length }, (_, i) => {
          const [k, pixel] = [i % yc, Math.floor(i / yc)];
          return values[(Math.floor(pixel / (yh * yw)) * yc + k) * yh * yw + (pixel % (yh * yw))];
        });
      },
      async close() {
        await session.release();
      },
    };
  };
}
