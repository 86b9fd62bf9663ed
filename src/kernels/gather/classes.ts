/**
 * Some classes' centres out of all (An et al. 2021, "Partial FC"): weights [D, C] with classes innermost, in chunks of
 * classes, and a list of S classes in rising order → [D, S]. Backward writes the gradient back and zeros elsewhere, by way
 * of a table from class to place in the list.
 */
import { type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { Temporary } from '../conv2d/grad_types.js';
import { eachItem, grid, type Operand, quads, quadsOf, write } from '../tensor.js';

const SIZE = 64;
const numbers = <B>(name: string, ref: B, element: string) => ({ name, ref, element, write: false });

export interface ClassChunk<B> {
  /** Classes [first, first + classes). */
  first: number;
  classes: number;
  /** f32, layout dense: [Dp][Cp]. */
  weight: B;
}

/** @param selection array<u32> of S classes. @param y [Dp, S]. */
export function gatherClasses<B>(
  selection: B,
  chunks: readonly ClassChunk<B>[],
  y: Operand<B>,
): KernelCall<B>[] {
  const [, selected] = y.shape;
  return chunks.map(({ first, classes, weight }, k) => ({
    label: 'gatherClasses.forward',
    uniforms: {
      count: u32(quadsOf(y.shape)),
      row_quads: u32(quads(selected)),
      selected: u32(selected),
      first: u32(first),
      classes: u32(classes),
      weight_row: u32(quads(classes) * 4),
    },
    buffers: [numbers('selection', selection, 'u32'), numbers('weight', weight, 'f32'), write('y', y)],
    // Each chunk fills in its own classes; the first also clears what others will fill.
    body: `${eachItem(SIZE)}
  let row = i / params.row_quads;
  let q = i % params.row_quads;
  var v = ${k === 0 ? 'vec4<f32>(0.0)' : 'load_y(i)'};
  for (var l = 0u; l < 4u; l++) {
    let place = q * 4u + l;
    let of_chunk = selection[min(place, params.selected - 1u)] - params.first;
    if (place < params.selected && of_chunk < params.classes) { v[l] = weight[row * params.weight_row + of_chunk]; }
  }
  store_y(i, v);
}`,
    workgroups: grid(quadsOf(y.shape), SIZE),
    flops: 0,
    bytes: quadsOf(y.shape) * 32,
  }));
}

/** Gradient of one chunk's weight. @param dy [Dp, S]. @param dw in the weight's layout. */
export function gatherClassesBackward<B>(
  selection: B,
  { first, classes }: Omit<ClassChunk<B>, 'weight'>,
  dy: Operand<B>,
  dw: B,
  temporary: Temporary<B>,
): KernelCall<B>[] {
  const [depth, selected] = dy.shape;
  const table = temporary([1, quads(classes) * 4], 'f32').ref;
  const count = depth * quads(classes);
  const place = (isWritten: boolean) => ({ ...numbers('place', table, 'u32'), write: isWritten });
  return [
    {
      label: 'gatherClasses.backward.clear',
      uniforms: { count: u32(quads(classes) * 4) },
      buffers: [place(true)],
      body: `${eachItem(SIZE)}
  place[i] = 0xffffffffu;
}`,
      workgroups: grid(quads(classes) * 4, SIZE),
      flops: 0,
      bytes: classes * 4,
    },
    {
      label: 'gatherClasses.backward.table',
      uniforms: { count: u32(selected), first: u32(first), classes: u32(classes) },
      buffers: [numbers('selection', selection, 'u32'), place(true)],
      body: `${eachItem(SIZE)}
  let of_chunk = selection[i] - params.first;
  if (of_chunk < params.classes) { place[of_chunk] = i; }
}`,
      workgroups: grid(selected, SIZE),
      flops: 0,
      bytes: selected * 8,
    },
    {
      label: 'gatherClasses.backward',
      uniforms: { count: u32(count), row_quads: u32(quads(classes)), dy_row: u32(quads(selected) * 4) },
      buffers: [
        place(false),
        numbers('dy', dy.ref, 'f32'),
        { name: 'dw', ref: dw, element: 'vec4<f32>', write: true },
      ],
      body: `${eachItem(SIZE)}
  let row = i / params.row_quads;
  let q = i % params.row_quads;
  var v = vec4<f32>(0.0);
  for (var l = 0u; l < 4u; l++) {
    let at = place[q * 4u + l];
    if (at != 0xffffffffu) { v[l] = dy[row * params.dy_row + at]; }
  }
  dw[i] = v;
}`,
      workgroups: grid(count, SIZE),
      flops: 0,
      bytes: count * 16,
    },
  ];
}
