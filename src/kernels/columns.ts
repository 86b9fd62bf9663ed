/**
 * The shape of kernels that do the same to every row of a [rows, C] matrix with values a channel: an invocation
 * takes a quad of channels, on software adapters up to four, and walks down a chunk of rows. What belongs to the channel
 * (scale, slope, sums) stays in registers, and neither the row nor the channel costs a division an element, which on a
 * software adapter would cost more than the load.
 *
 * Sums over rows are two kernels, both in a fixed order, so that a run repeats bit for bit: `columns` leaves one partial
 * result a chunk, `finishColumns` adds the chunks of a channel.
 */
import { type Uniform, u32 } from '../gpu/kernel_call.js';
import type { DeviceTraits } from '../gpu/traits.js';
import { type Fold, fold } from './fold.js';
import { ceilDiv, channelsOf, grid, quads, rowsOf } from './tensor.js';

export interface Walk {
  rows: number;
  quads: number;
  chunks: number;
  uniforms: Record<string, Uniform>;
  workgroups: [number, number, number];
  /** WGSL from the entry point on: defines chunk, its `first` row and `length`. */
  open: string;
  /** WGSL once for each quad of channels of an invocation, `q{k}`: to load, declare or store what belongs to it. */
  channels(text: (k: number) => string): string;
  /**
   * WGSL that runs for every row of the chunk and quad `k`; it reads and writes element `at`.
   * @param unroll rows a turn of the loop: four halve the time of a body that only loads and adds; one that stores
   *   gets slower.
   */
  each(text: (k: number) => string, unroll?: number): string;
}

/** Software drivers give a loop up after 65 535 turns. */
const MOST_ROWS = 1 << 15;

/** @param few as few chunks as keep the device busy: for sums, whose chunks have to be added up. */
export function columns(shape: readonly number[], traits: DeviceTraits, few = false): Walk {
  const rows = rowsOf(shape);
  const width = quads(channelsOf(shape));
  const cpu = traits.kind === 'cpu';
  const size = cpu ? 8 : 64;
  // Processors fetch ahead along memory: of a row of kilobytes a walk of eight lanes by one quad touches too little.
  const wide = cpu ? ([4, 2].find((n) => width % (size * n) === 0) ?? 1) : 1;
  const across = width / wide;
  // A card hides the latency of its memory behind a hundred thousand invocations and more.
  const invocations = cpu ? (few ? 256 : 1024) : 131072;
  const wanted = Math.min(ceilDiv(invocations, across), ceilDiv(rows, cpu || few ? 16 : 4));
  const perChunk = Math.min(MOST_ROWS, ceilDiv(rows, Math.max(1, wanted)));
  const chunks = ceilDiv(rows, perChunk);
  const blocks = Array.from({ length: wide }, (_, k) => k);
  return {
    rows,
    quads: width,
    chunks,
    uniforms: {
      count: u32(chunks * across),
      rows: u32(rows),
      quads: u32(width),
      per_chunk: u32(perChunk),
    },
    workgroups: grid(chunks * across, size),
    open: `
@compute @workgroup_size(${size})
fn main(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let i = gid.x + gid.y * groups.x * ${size}u;
  if (i >= params.count) { return; }
  let across = params.quads / ${wide}u;
  let chunk = i / across;
  let place = i - chunk * across;
  let q = ${wide === 1 ? 'place' : `place / ${size}u * ${size * wide}u + place % ${size}u`};
  let first = chunk * params.per_chunk;
  let length = min(params.per_chunk, params.rows - first);
${blocks.map((k) => `  let q${k} = q + ${k * size}u;`).join('\n')}`,
    channels: (text) => blocks.map(text).join('\n'),
    each: (text, unroll = 1) => {
      const turn = `${blocks.map((k) => `{ let at = row + ${k * size}u; ${text(k)} }`).join('\n')} row += params.quads;`;
      const rest = `for (; r < length; r++) { ${turn} }`;
      return `
  var row = first * params.quads + q;
  var r = 0u;
  ${unroll > 1 ? `for (; r + ${unroll - 1}u < length; r += ${unroll}u) { ${turn.repeat(unroll)} }` : ''}
  ${rest}`;
    },
  };
}

/** The second kernel of a sum, one workgroup or one invocation a quad of channels. */
export function finishColumns(
  walk: Pick<Walk, 'rows' | 'quads' | 'chunks'>,
  channels: number,
  traits: DeviceTraits,
) {
  // One lane suffices where there is little to add.
  const lanes =
    traits.kind === 'cpu' || walk.chunks < 16 ? 1 : Math.min(128, 2 ** Math.floor(Math.log2(walk.chunks)));
  const several = lanes > 1;
  return {
    uniforms: {
      count: u32(walk.quads),
      chunks: u32(walk.chunks),
      rows: u32(walk.rows),
      channels: u32(channels),
    } as Record<string, Uniform>,
    workgroups: several ? grid(walk.quads, 1) : grid(walk.quads, 8),
    /**
     * WGSL from the entry point on: `q`, the quad of channels, and the sum over the chunks `k` (see fold.ts).
     */
    open: (state: Parameters<typeof fold>[1] = {}, each = '', join?: string): string => {
      const sum: Fold =
        each === '' ? { memory: '', sum: '' } : fold(lanes, state, 'params.chunks', each, join);
      return `
${sum.memory}
// Which of the four channels of a quad exist.
fn real(q: u32) -> vec4<bool> { return vec4<u32>(q * 4u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels); }
@compute @workgroup_size(${several ? lanes : 8})
${
  several
    ? `fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let q = group.x + group.y * groups.x;`
    : `fn main(@builtin(global_invocation_id) gid: vec3<u32>) {
  let q = gid.x;`
}
  if (q >= params.count) { return; }
${sum.sum}`;
    },
  };
}
