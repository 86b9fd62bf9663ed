/**
 * Whether a tensor holds an infinity or NaN: flags[index] becomes 1 if so. For the search after the layer where a
 * training run went wrong. By the exponent's bits, because comparisons with NaN may be optimised away.
 */
import { type FloatType, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid } from '../tensor.js';

export function checkFinite<B>(c: {
  x: B;
  words: number;
  dtype: FloatType;
  flags: B;
  index: number;
}): KernelCall<B>[] {
  const bad =
    c.dtype === 'f32'
      ? 'v & 0x7f800000u) == 0x7f800000u'
      : 'v & 0x7c00u) == 0x7c00u || (v & 0x7c000000u) == 0x7c000000u';
  const items = Math.min(1024, c.words);
  return [
    {
      label: 'anomaly.check',
      uniforms: { count: u32(items), words: u32(c.words), index: u32(c.index) },
      buffers: [
        { name: 'x', ref: c.x, element: 'u32', write: false },
        { name: 'flags', ref: c.flags, element: 'atomic<u32>', write: true },
      ],
      body: `${eachItem(8)}
  var found = false;
  for (var k = i; k < params.words; k += params.count) { let v = x[k]; found = found || ((${bad}); }
  if (found) { atomicStore(&flags[params.index], 1u); }
}`,
      workgroups: grid(items, 8),
      flops: 0,
      bytes: c.words * 4,
    },
  ];
}
