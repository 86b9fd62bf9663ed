import { zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { readMxnet } from '../../src/weights/formats/mxnet.js';
import { numpyPickle, readNpy } from '../../src/weights/formats/numpy.js';
import { readPickle } from '../../src/weights/formats/pickle.js';
import { readSafetensors, writeSafetensors } from '../../src/weights/formats/safetensors.js';
import { findStateDict, readTorch } from '../../src/weights/formats/torch.js';
import { readOnnx } from '../../src/weights/onnx/read.js';
import { readStateDict } from '../../src/weights/read.js';
import {
  decodeElements,
  fromHalfBits,
  permute,
  type StateDict,
  toHalf,
} from '../../src/weights/state_dict.js';

const bytes = (...parts: (number | string | Uint8Array | ArrayBufferView)[]): Uint8Array =>
  Uint8Array.from(
    parts.flatMap((p) => {
      if (typeof p === 'number') return [p];
      if (typeof p === 'string') return [...p].map((c) => c.charCodeAt(0));
      return [...new Uint8Array(p.buffer, p.byteOffset, p.byteLength)];
    }),
  );
const f32 = (...v: number[]) => Float32Array.of(...v);
const u64 = (v: number) => BigInt64Array.of(BigInt(v));
const u32 = (v: number) => Int32Array.of(v);
/** Opcodes of a pickle: protocol 2 … STOP. */
const pickle = (...parts: Parameters<typeof bytes>) => bytes(0x80, 2, ...parts, '.');
const text = (s: string) => bytes('X', u32(s.length), s);
const global = (module: string, name: string) => bytes('c', `${module}\n${name}\n`);

describe('safetensors', () => {
  const state: StateDict = new Map([
    ['b', { shape: [2, 3], data: f32(1, -2, 3.5, 0, 1e-3, 65504) }],
    ['a', { shape: [], data: f32(7) }],
  ]);

  it('gives back what was written, in order, with its metadata', () => {
    const file = readSafetensors(writeSafetensors(state, { net: 'x', title: 'Łukasz' }));
    expect([...file.state]).toEqual([...state]);
    expect(file.metadata).toEqual({ net: 'x', title: 'Łukasz' });
  });

  it('rounds halves to the nearest even', () => {
    const back = readSafetensors(writeSafetensors(state, {}, 'f16')).state.get('b')!.data;
    expect([...back.slice(0, 4)]).toEqual([1, -2, 3.5, 0]);
    expect(back[4]).toBe(0.0010004043579101562);
    // 2049 lies between the halves 2048 and 2050, 2051 between 2050 and 2052: ties go to the even mantissa.
    expect([...toHalf(f32(2049, 2051, 1e6, 6e-8))].map(fromHalfBits)).toEqual([
      2048,
      2052,
      Number.POSITIVE_INFINITY,
      2 ** -24,
    ]);
  });

  it.each([
    ['truncated', (b: Uint8Array) => b.slice(0, b.length - 4), /truncated or its header is wrong/],
    [
      'a length beyond the file',
      (b: Uint8Array) => bytes(u64(1 << 20), b.slice(8)),
      /header claims 1048576 bytes/,
    ],
    ['no JSON', (b: Uint8Array) => bytes(b.slice(0, 8), '{{', b.slice(10)), /not JSON/],
  ])('refuses %s', (_, damage, message) => {
    expect(() => readSafetensors(damage(writeSafetensors(state, {})))).toThrow(message);
  });

  it('refuses offsets that point outside or do not fit the shape', () => {
    const header = JSON.stringify({ w: { dtype: 'F32', shape: [4], data_offsets: [0, 8] } });
    expect(() => readSafetensors(bytes(u64(header.length), header, f32(1, 2)))).toThrow(/tensor w \[4\]/);
  });
});

describe('pickle', () => {
  const open = (b: Uint8Array) => readPickle(b, numpyPickle);

  it('reads containers, numbers and strings', () => {
    const value = open(
      pickle(
        '}',
        '(',
        text('n'),
        'K',
        5,
        text('l'),
        ']',
        '(',
        'G',
        bytes(0x3f, 0xf0, 0, 0, 0, 0, 0, 0),
        0x88,
        'e',
        'u',
      ),
    ).value;
    expect(value).toEqual(
      new Map<unknown, unknown>([
        ['n', 5],
        ['l', [1, true]],
      ]),
    );
  });

  it('refuses by name what a picture of weights does not need, and runs nothing', () => {
    const evil = pickle(global('os', 'system'), text('touch /tmp/owned'), 0x85, 'R');
    expect(() => open(evil)).toThrow(/wants to use os\.system.*refused/);
    expect(() => open(pickle(text('builtins'), text('eval'), 0x93))).toThrow(/builtins\.eval/);
  });

  it.each([
    ['a truncated string', bytes(0x80, 2, 'X', u32(100), 'ab')],
    ['an endless file', bytes(0x80, 2, ']', ']')],
    ['an empty stack', pickle('a')],
    ['an unknown opcode', pickle(0xff)],
    ['a memo that was never set', pickle('h', 9)],
  ])('refuses %s', (_, file) => {
    expect(() => open(file)).toThrow(/pickle: /);
  });

  it('stops at its limits', () => {
    const deep = pickle(...new Array(200).fill('('));
    expect(() => readPickle(deep, { ...numpyPickle, maxDepth: 100 })).toThrow(/too deep/);
  });
});

describe('npy', () => {
  const npy = (header: string, body: Uint8Array) =>
    bytes(0x93, 'NUMPY', 1, 0, Int16Array.of(header.length), header, body);

  it('reads rows and columns first', () => {
    const c = readNpy(
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n", bytes(f32(1, 2, 3, 4))),
    );
    expect(c).toEqual({ shape: [2, 2], data: f32(1, 2, 3, 4) });
    const f = readNpy(
      npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\n", bytes(f32(1, 2, 3, 4))),
    );
    expect(f).toEqual({ shape: [2, 2], data: f32(1, 3, 2, 4) });
  });

  it('reads a pickled dict of arrays', () => {
    const array = [
      global('numpy.core.multiarray', '_reconstruct'),
      global('numpy', 'ndarray'),
      'K',
      0,
      0x85,
      'U',
      1,
      'b',
      0x87,
      'R',
    ];
    const type = [
      global('numpy', 'dtype'),
      'U',
      2,
      'f4',
      'K',
      0,
      'K',
      1,
      0x87,
      'R',
      '(',
      'K',
      3,
      'U',
      1,
      '<',
      'N',
      'N',
      'N',
      'J',
      u32(-1),
      'J',
      u32(-1),
      'K',
      0,
      't',
      'b',
    ];
    const state = ['(', 'K', 1, 'K', 2, 0x85, ...type, 0x89, 'T', u32(8), f32(3, 4), 't', 'b'];
    const dict = bytes(0x80, 2, '}', 'U', 1, 'w', ...array, ...state, 's', '.');
    const file = npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }\n", dict);
    const w = readStateDict(file).get('w')!;
    expect([w.shape, [...w.data]]).toEqual([[2], [3, 4]]);
  });

  it('says what is wrong with a short or foreign file', () => {
    expect(() =>
      readNpy(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }\n", bytes(f32(1)))),
    ).toThrow(/9 elements of f4 need 36 bytes/);
    expect(() => readNpy(bytes('no numpy here'))).toThrow(/magic bytes/);
  });
});

/** `OrderedDict(w = tensor [2, 3] of storage 0)`, transposed where strides say so. */
const torchPickle = (strides: [number, number], elements = 6) =>
  bytes(
    0x80,
    2,
    global('collections', 'OrderedDict'),
    ')',
    'R',
    text('w'),
    global('torch._utils', '_rebuild_tensor_v2'),
    '(',
    '(',
    text('storage'),
    global('torch', 'FloatStorage'),
    text('0'),
    text('cpu'),
    'K',
    elements,
    't',
    'Q',
    'K',
    0,
    'K',
    2,
    'K',
    3,
    0x86,
    'K',
    strides[0],
    'K',
    strides[1],
    0x86,
    0x89,
    global('collections', 'OrderedDict'),
    ')',
    'R',
    't',
    'R',
    's',
    '.',
  );
const six = f32(1, 2, 3, 4, 5, 6);

describe('PyTorch', () => {
  it('reads the zip form, contiguous and transposed', () => {
    const zip = (strides: [number, number]) =>
      zipSync({ 'net/data.pkl': torchPickle(strides), 'net/data/0': bytes(six) }, { level: 0 });
    expect(readStateDict(zip([3, 1])).get('w')).toEqual({ shape: [2, 3], data: six });
    expect(readStateDict(zip([1, 2])).get('w')).toEqual({ shape: [2, 3], data: f32(1, 3, 5, 2, 4, 6) });
  });

  it('reads the legacy form', () => {
    const magic = bytes(0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.');
    const file = bytes(
      magic,
      pickle('M', Int16Array.of(1001)),
      pickle('}'),
      torchPickle([3, 1]),
      pickle(']', text('0'), 'a'),
      u64(6),
      six,
    );
    expect(findStateDict(readTorch(file))!.get('w')).toEqual({ shape: [2, 3], data: six });
    expect(() => readTorch(file.slice(0, file.length - 8))).toThrow(/storage 0 claims 6 elements/);
  });

  it('refuses a tensor that reaches outside its storage, and a zip that is none of PyTorch', () => {
    expect(() =>
      readTorch(zipSync({ 'net/data.pkl': torchPickle([3, 1]), 'net/data/0': bytes(f32(1, 2)) })),
    ).toThrow(/outside its storage/);
    expect(() => readTorch(zipSync({ 'readme.txt': bytes('hello') }))).toThrow(/no data\.pkl/);
  });
});

describe('MXNet', () => {
  const array = bytes(Uint32Array.of(0xf993fac9), u32(0), u32(1), u64(2), u32(1), u32(0), u32(0), f32(8, 9));
  const file = bytes(u64(0x112), u64(0), u64(1), array, u64(1), u64(5), 'arg:w');

  it('reads arrays and their names', () => {
    expect(readStateDict(file)).toEqual(new Map([['arg:w', { shape: [2], data: f32(8, 9) }]]));
  });

  it('says where a truncated file ends', () => {
    expect(() => readMxnet(file.slice(0, 60))).toThrow(/mxnet: the file ends/);
  });
});

describe('elements', () => {
  it('decodes every width', () => {
    expect([...decodeElements(bytes(Float64Array.of(0.5, -3)), 'f64', 2)]).toEqual([0.5, -3]);
    expect([...decodeElements(bytes(Uint16Array.of(0x3f80, 0xc040)), 'bf16', 2)]).toEqual([1, -3]);
    expect([...decodeElements(bytes(BigInt64Array.of(-2n)), 'i64', 1)]).toEqual([-2]);
    expect([...decodeElements(bytes(1, 0, 7), 'bool', 3)]).toEqual([1, 0, 1]);
  });

  it('permutes axes', () => {
    const t = { shape: [2, 3, 1], data: six };
    expect(permute(t, [2, 1, 0])).toEqual({ shape: [1, 3, 2], data: f32(1, 4, 2, 5, 3, 6) });
  });
});

describe('unknown files', () => {
  it('are refused with the list of formats', () => {
    expect(() => readStateDict(bytes('just some text, no weights'))).toThrow(
      /known format \(safetensors, PyTorch/,
    );
    expect(() => readOnnx(bytes(0x08, 8, 0x3a, 0x7f))).toThrow(/onnx/);
  });
});
