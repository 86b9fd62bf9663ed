/**
 * Cells of a score map [1, h, w, 2] whose second channel reaches a threshold, gathered into one list with their box
 * regressions [1, h, w, 4]. Several maps append to one list; `level` tells them apart.
 *
 * `found` is one u32, the number of cells that qualified, whether they found room or not: above the list's
 * capacity the caller runs again with a longer one. Entries are two vec4<f32>: (x, y, score, level), (regressions).
 * Their order is that of an atomic counter and differs from run to run: callers sort.
 */
import { f32, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import { eachItem, grid, type Operand, read, rowsOf } from '../tensor.js';

const SIZE = 64;

export interface CompactOptions {
  threshold: number;
  level: number;
  /** Entries the list has room for. */
  capacity: number;
  /** Added to the cell's coordinates: where the map begins in the whole level. */
  left: number;
  top: number;
}

export function compactCandidates<B>(
  prob: Operand<B>,
  box: Operand<B>,
  found: B,
  list: B,
  options: CompactOptions,
): KernelCall<B>[] {
  const count = rowsOf(prob.shape);
  return [
    {
      label: 'candidates.compact',
      uniforms: {
        count: u32(count),
        width: u32(prob.shape[2]),
        threshold: f32(options.threshold),
        level: f32(options.level),
        capacity: u32(options.capacity),
        left: u32(options.left),
        top: u32(options.top),
      },
      buffers: [
        read('prob', prob),
        read('box', box),
        { name: 'found', ref: found, element: 'atomic<u32>', write: true },
        { name: 'list', ref: list, element: 'vec4<f32>', write: true },
      ],
      body: `${eachItem(SIZE)}
  let score = load_prob(i).y;
  if (score < params.threshold) { return; }
  let at = atomicAdd(&found[0], 1u);
  if (at >= params.capacity) { return; }
  let x = f32(i % params.width + params.left);
  let y = f32(i / params.width + params.top);
  list[2u * at] = vec4<f32>(x, y, score, params.level);
  list[2u * at + 1u] = load_box(i);
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: count * 16,
    },
  ];
}
