/**
 * Sum of every channel, the gradient of a bias:
 *
 *   y[c] = Σ_r x[r, c]          x: any map or matrix [..., C], y: f32 [Cp]
 *
 * Two passes: each invocation adds a quad of channels over its share of the rows, then the shares are added in
 * order. Four running sums an invocation hide the latency of the additions and shorten the chain of roundings.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import {
  bytesPerQuad,
  ceilDiv,
  channelsOf,
  eachItem,
  grid,
  type Operand,
  quads,
  quadsOf,
  read,
  rowsOf,
} from '../tensor.js';
import { sumPartials } from './partials.js';

export interface ChannelSumCall<B> {
  x: Operand<B>;
  /** [Cp] f32. */
  y: B;
  /** Scratch memory that lives for these calls only. */
  temporary(shape: readonly number[], dtype: 'f32'): Operand<B>;
}

/** Rows an invocation adds at least: below, the second pass would cost more than the first saves. */
const LEAST_ROWS = 64;

export function channelSum<B>(call: ChannelSumCall<B>, traits: DeviceTraits): KernelCall<B>[] {
  const { x, y } = call;
  const rows = rowsOf(x.shape);
  const channels = channelsOf(x.shape);
  const q = quads(channels);
  const wanted = ceilDiv(traits.kind === 'cpu' ? 512 : 16384, q);
  const chunk = ceilDiv(rows, Math.max(1, Math.min(wanted, ceilDiv(rows, LEAST_ROWS))));
  const splits = ceilDiv(rows, chunk);
  const partial = splits > 1 ? call.temporary([splits, q * 4], 'f32').ref : y;
  const size = traits.kind === 'cpu' ? Math.max(traits.subgroupSize, 8) : 64;
  const first: KernelCall<B> = {
    label: 'reduce.channel_sum',
    uniforms: { count: u32(splits * q), quads: u32(q), rows: u32(rows), chunk: u32(chunk) },
    buffers: [read('x', x), { name: 'partial', ref: partial, element: 'vec4<f32>', write: true }],
    body: `${eachItem(size)}
  let quad = i % params.quads;
  let begin = i / params.quads * params.chunk;
  let to = min(begin + params.chunk, params.rows) * params.quads;
  var a = vec4<f32>(0.0);
  var b = vec4<f32>(0.0);
  var c = vec4<f32>(0.0);
  var d = vec4<f32>(0.0);
  var at = begin * params.quads + quad;
  for (; at + 3u * params.quads < to; at += 4u * params.quads) {
    a += load_x(at);
    b += load_x(at + params.quads);
    c += load_x(at + 2u * params.quads);
    d += load_x(at + 3u * params.quads);
  }
  for (; at < to; at += params.quads) { a += load_x(at); }
  partial[i] = (a + b) + (c + d);
}`,
    workgroups: grid(splits * q, size),
    flops: rows * channels,
    bytes: quadsOf(x.shape) * bytesPerQuad(x.dtype),
  };
  return splits > 1 ? [first, sumPartials(partial, splits, q, y)] : [first];
}
