// The .tflite file of a net that ../peers_tflite.ts lowered. Numbers of operators, tables and fields are those of
// TensorFlow's tensorflow/lite/schema/schema.fbs.

/** Indirect, so that type checks and bundlers do not need what is installed on demand. @param {string} name */
const load = (name) => import(name);

/** Number of the operator, and of its table of options among their union; 0 for none. */
export const OPERATORS = {
  ADD: { code: 0, options: 11 },
  CONV_2D: { code: 3, options: 1 },
  DEPTHWISE_CONV_2D: { code: 4, options: 2 },
  FULLY_CONNECTED: { code: 9, options: 8 },
  MAX_POOL_2D: { code: 17, options: 5 },
  MUL: { code: 18, options: 21 },
  RELU: { code: 19, options: 0 },
  SOFTMAX: { code: 25, options: 9 },
  PAD: { code: 34, options: 22 },
  PRELU: { code: 54, options: 0 },
};
const SCHEMA_VERSION = 3;
const FLOAT32 = 0;
const INT32 = 2;
/** As the schema wants it of constants, so that they can be used where they lie. */
const ALIGNMENT = 16;

/**
 * @typedef {{ byte: number } | { int: number } | { float: number }} Scalar
 * @typedef {Scalar | { offset: number } | undefined} Field
 * @typedef {{ name: string, shape: readonly number[], data?: Float32Array | Int32Array }} Tensor `data` of constants.
 * @typedef {{ kind: keyof typeof OPERATORS, inputs: readonly number[], output: number, options: readonly Scalar[] }} Operator
 *   `options` are its table's first fields, in order.
 * @typedef {{ name: string, tensors: Tensor[], operators: Operator[], inputs: number[], outputs: number[] }} Model
 */

/** @param {Model} model @returns {Promise<Uint8Array>} */
export async function writeTflite(model) {
  const { Builder } = await load('flatbuffers');
  const constants = model.tensors.reduce((bytes, t) => bytes + (t.data?.byteLength ?? 0), 0);
  const b = new Builder(constants + 1024 * (model.tensors.length + 64));
  b.forceDefaults(true);

  /** Fields in the schema's order; those left undefined are not there. @param {readonly Field[]} fields */
  const table = (fields) => {
    b.startObject(fields.length);
    fields.forEach((field, i) => {
      if (field === undefined) return;
      if ('byte' in field) b.addFieldInt8(i, field.byte, 0);
      else if ('int' in field) b.addFieldInt32(i, field.int, 0);
      else if ('float' in field) b.addFieldFloat32(i, field.float, 0);
      else b.addFieldOffset(i, field.offset, 0);
    });
    return b.endObject();
  };
  /** FlatBuffers grow from their end. @param {readonly number[]} list @param {(v: number) => void} add */
  const vector = (list, add) => {
    b.startVector(4, list.length, 4);
    for (const v of [...list].reverse()) add(v);
    return { offset: b.endVector() };
  };
  /** @param {readonly number[]} list */
  const ints = (list) => vector(list, (v) => b.addInt32(v));
  /** @param {readonly number[]} list */
  const offsets = (list) => vector(list, (v) => b.addOffset(v));
  /** @param {string} s */
  const text = (s) => ({ offset: b.createString(s) });
  /** @param {Float32Array | Int32Array} data */
  const bytes = (data) => {
    b.prep(ALIGNMENT, data.byteLength);
    return { offset: b.createByteVector(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) };
  };

  // Buffer 0 is empty: that of what is computed.
  const buffers = [table([])];
  const tensors = model.tensors.map(({ name, shape, data }) => {
    const buffer = data ? buffers.push(table([bytes(data)])) - 1 : 0;
    const type = data instanceof Int32Array ? INT32 : FLOAT32;
    return table([ints(shape), { byte: type }, { int: buffer }, text(name)]);
  });
  const kinds = [...new Set(model.operators.map((o) => o.kind))];
  const codes = kinds.map((kind) => {
    const { code } = OPERATORS[kind];
    return table([{ byte: code }, undefined, { int: 1 }, { int: code }]);
  });
  const operators = model.operators.map(({ kind, inputs, output, options }) => {
    const { options: type } = OPERATORS[kind];
    return table([
      { int: kinds.indexOf(kind) },
      ints(inputs),
      ints([output]),
      type ? { byte: type } : undefined,
      type ? { offset: table(options) } : undefined,
    ]);
  });
  const graph = table([
    offsets(tensors),
    ints(model.inputs),
    ints(model.outputs),
    offsets(operators),
    text(model.name),
  ]);
  const root = table([
    { int: SCHEMA_VERSION },
    offsets(codes),
    offsets([graph]),
    text('wfr'),
    offsets(buffers),
  ]);
  b.finish(root, 'TFL3');
  return b.asUint8Array();
}
