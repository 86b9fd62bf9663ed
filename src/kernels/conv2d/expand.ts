/**
 * A 1×1 layer and the depthwise 3×3 filter after it (an inverted residual block's first two) in one dispatch, for software
 * adapters and inference, each with bias and PReLU:
 *
 *   map[p, c] = prelu(Σ_k x[p, k] · weight[k, c] + bias) + residual[p, c]        y = prelu(depthwise(map) + bias)
 *
 * A workgroup is one subgroup and takes its lanes' quads of channels over the whole map of a picture: first all pixels by the
 * product of subgroup.ts, then the strips of depthwise.ts. A lane filters the channels that it wrote itself, so nothing waits:
 * no barrier, and one dispatch where between two the cores idle for some 50 µs.
 *
 * The same pipeline does either alone, for the layers between the pairs: two more would compile as long again. For what a call has
 * not, something is bound all the same, and a uniform of zero says that it is not to be done.
 */
import { type FloatType, type KernelCall, u32 } from '../../gpu/kernel_call.js';
import type { DeviceTraits } from '../../gpu/traits.js';
import {
  ceilDiv,
  channelsOf,
  type Operand,
  quads,
  read,
  rowsOf,
  tensorBytes,
  vector,
  write,
} from '../tensor.js';
import { ACTIVATED, stripWalk } from './depthwise.js';
import { convFlops, geometryUniforms, isPointwise } from './geometry.js';
import { hasFixedSubgroups, isDepthwise, isStrip } from './plan.js';
import { halves, lines, multiplyAdd, push, sumsArray, tilesInTurn, weightLoads } from './subgroup.js';
import type { Conv2dShape } from './types.js';

/** Whether a layer can be one of the two: wide enough that lanes of channels are not idle. */
export const takesExpand = (s: Conv2dShape, traits: DeviceTraits): boolean =>
  hasFixedSubgroups(traits) &&
  s.outChannels > 2 * traits.subgroupSize &&
  (s.groups === 1 ? isPointwise(s) : isDepthwise(s) && isStrip(s));

/** Whether two layers are the two, and leave a few cores something to do: a workgroup takes its channels of a whole map. */
export const takesPair = (first: Conv2dShape, filter: Conv2dShape, traits: DeviceTraits): boolean =>
  first.groups === 1 &&
  filter.groups > 1 &&
  [first, filter].every((s) => takesExpand(s, traits)) &&
  filter.batch * ceilDiv(quads(filter.outChannels), traits.subgroupSize) >= 4;

export interface ExpandCall<B> {
  /** The filter's; where there is none, the 1×1 layer's. */
  shape: Conv2dShape;
  /** What the 1×1 layer reads; where there is none, the filter's input is `map`. */
  x?: Operand<B>;
  residual?: Operand<B>;
  map: Operand<B>;
  /** What the filter writes, if there is one. */
  y?: Operand<B>;
  /** The 1×1 layer's, packing f32 or with `precision` f16 f16pairs; where there is none, any parameter. */
  weight: B;
  /**
   * [rows][Cp] f32: with a filter its taps, bias and slope, then the 1×1 layer's bias and slope (with none, any). Of one
   * buffer, because every load in the text takes the driver 30 ms to compile.
   */
  rows: B;
}

interface Context<B> {
  traits: DeviceTraits;
  precision: FloatType;
  temporary(shape: readonly number[], dtype: FloatType): Operand<B>;
}

/** Pixels a lane in the product; rows of a strip; rows of parameters with a filter. */
const BLOCKS = 4;
const STRIP = 2;
const ROWS = 13;

export function conv2dExpand<B>(call: ExpandCall<B>, context: Context<B>): KernelCall<B>[] {
  const { shape, x, residual, map, y } = call;
  const lanes = context.traits.subgroupSize;
  const pairs = context.precision === 'f16';
  const tile = lanes * BLOCKS;
  const channels = quads(shape.outChannels);
  const tiles = ceilDiv(channels, lanes);
  // Where nothing is filtered, the pixels of all pictures are one row.
  const pictures = y ? shape.batch : 1;
  const pixels = rowsOf(map.shape) / pictures;
  const run = y ? pixels : tilesInTurn(ceilDiv(pixels, tile), tiles) * tile;
  const height = x ? shape.outHeight : STRIP;
  const spare = () => context.temporary([4], map.dtype);
  const body = `
${pairs ? halves(4) : ''}
struct Vectors { bias: vec4<f32>, slope: vec4<f32> }
${ACTIVATED}
fn finish(sum: vec4<f32>, vectors: Vectors, i: u32) { store_y(i, activated(sum + vectors.bias, vectors.slope)); }
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.in_q;
  let wanted = group.x * ${lanes}u + lane;
  let quad = min(wanted, per_row - 1u);
  let n = group.y;
${lines(ROWS, (t) => `  var w${t} = vec4<f32>(0.0);`)}
  for (var t = 0u; t < params.rows; t++) {
    ${push('w', ROWS, 'rows[t * per_row + quad]')}
  }
  let begin = n * params.pixels + group.z * params.run;
  let end = min(begin + params.run, (n + 1u) * params.pixels);
  for (var first = begin; first < end; first += ${tile}u) {
${lines(BLOCKS, (b) => `    let p${b} = min(first + ${b * lanes}u + lane, end - 1u) * params.depth;`)}
${lines(tile, (i) => `    var s${i} = vec4<f32>(0.0);`)}
    let more = first + ${lanes}u < end;
    var at = quad;
    for (var c = 0u; c < params.depth; c++) {
${weightLoads(pairs)}
${multiplyAdd(lanes, 4, BLOCKS, (b) => `      let x${b} = load_input(p${b} + c);`)}
    }
    // A lane without channels of its own goes on: it hands pixels to the others.
    if (wanted < per_row) {
${sumsArray(tile)}
      var to = first * per_row + quad;
      for (var m = first; m < min(first + ${tile}u, end); m++) {
        var v = activated(sums[m - first] + w${ROWS - 2}, w${ROWS - 1});
        if (params.adds != 0u) { v += load_residual(to); }
        store_x(to, v);
        to += per_row;
      }
    }
  }
  if (wanted < per_row && params.height > 0u) {
    let vectors = Vectors(w9, w10);
    let ox = 0u;
    let columns = params.out_w;
    let top = group.z * params.height;
    for (var oy = top; oy < min(top + params.height, params.out_h); oy += ${STRIP}u) {
${stripWalk(STRIP)}
    }
  }
}`;
  return [
    {
      label: `conv2d.forward.expand${x ? ' 1×1' : ''}${y ? ' 3×3' : ''}`,
      // Bounds come from uniforms, the same for all lanes of the one subgroup of a workgroup.
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: {
        ...geometryUniforms(shape),
        in_q: u32(channels),
        pixels: u32(pixels),
        depth: u32(x ? quads(channelsOf(x.shape)) : 0),
        run: u32(x ? run : 0),
        height: u32(y ? height : 0),
        rows: u32(y ? ROWS : 2),
        adds: u32(residual ? 1 : 0),
      },
      buffers: [
        read('input', x ?? spare()),
        { name: 'weight', ref: call.weight, element: pairs ? 'vec4<u32>' : 'vec4<f32>', write: false },
        vector('rows', call.rows),
        read('residual', residual ?? spare()),
        write('x', map),
        write('y', y ?? spare()),
      ],
      body,
      workgroups: [tiles, pictures, ceilDiv(y ? shape.outHeight : pixels, y ? height : run)],
      flops:
        (y ? convFlops(shape) : 0) +
        (x ? 2 * rowsOf(map.shape) * channelsOf(x.shape) * shape.outChannels : 0),
      bytes: [x, residual, map, y].reduce((sum, o) => sum + (o ? tensorBytes(o.shape, o.dtype) : 0), 0),
    },
  ];
}
