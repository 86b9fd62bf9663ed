/**
 * Convolution as implicit GEMM for software adapters, where a lane is a SIMD lane, a workgroup runs on one
 * core and a storage load costs as much as dozens of multiply-adds (some ten instructions a lane and number).
 *
 * A workgroup is one subgroup of L lanes. It computes L·W output channels for B·L pixels: lane l holds
 * channels l·W … l·W+W−1 of every pixel of the tile. Each lane loads the input quad of its own pixel and the
 * weights of its own channels; `subgroupShuffle` with a constant lane then hands every pixel's quad round,
 * so that 4·B + 4·W loaded numbers a lane feed 4·W·B·L multiply-adds. No workgroup memory, no barrier.
 * Accumulators spill to L1, which is why the four depth steps of a quad are added to one in a row.
 *
 * Two forms: `spatial` walks the taps of the filter, each lane with its own pixel's border test; `pointwise`
 * (1×1, stride 1, no padding) is a plain GEMM and saves the coordinates.
 *
 * Workgroups that follow one another share their weights, not their pixels: a tile's weights stay in L2.
 * Weights: f32 [K][Op], or f16 pairs of two depth steps [K/2][Op] in u32 (half the loads).
 */
import type { BufferBinding, FloatType, KernelCall } from '../../gpu/kernel_call.js';
import { f32, u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, DIVIDE, quads, read } from '../tensor.js';
import { addsUniform, optionalResidual } from './epilogue.js';
import { convBytes, convFlops, geometryUniforms, isPointwise } from './geometry.js';
import type { Conv2dCall, Conv2dPlan } from './types.js';

export interface SubgroupTile {
  lanes: number;
  /** Output channels a lane: 1 (f32 output only), 2 or 4. */
  width: number;
  /** Pixels a lane. */
  blocks: number;
}

export const vec = (width: number, type: string) => (width === 1 ? type : `vec${width}<${type}>`);
export const range = (n: number) => Array.from({ length: n }, (_, i) => i);
export const lines = (n: number, f: (i: number) => string) => range(n).map(f).join('\n');

/** Registers have no index: in a loop they move down by one, and the last of them takes `value`. */
export const push = (name: string, count: number, value: string) =>
  `${range(count - 1)
    .map((i) => `${name}${i} = ${name}${i + 1};`)
    .join(' ')} ${name}${count - 1} = ${value};`;

/**
 * Tiles of pixels that a workgroup takes one after the other: to begin one costs as much as a thousand multiply-adds of
 * eight lanes, but each core wants some workgroups of its own.
 */
export const tilesInTurn = (pixelTiles: number, channelTiles: number): number =>
  Math.max(1, Math.min(MOST_IN_TURN, Math.floor((pixelTiles * channelTiles) / LEAST_WORKGROUPS)));
const MOST_IN_TURN = 8;
const LEAST_WORKGROUPS = 32;

export function conv2dSubgroup<B>(call: Conv2dCall<B>, plan: Conv2dPlan): KernelCall<B>[] {
  const s = call.shape;
  const residual = optionalResidual(call, plan);
  const { lanes, width, blocks } = plan.tile as unknown as SubgroupTile;
  const pairs = plan.packing === 'f16pairs';
  const pixels = s.batch * s.outHeight * s.outWidth;
  const channelTiles = ceilDiv(quads(s.outChannels) * 4, lanes * width);
  const run = tilesInTurn(ceilDiv(pixels, lanes * blocks), channelTiles) * lanes * blocks;
  const pixelRuns = ceilDiv(pixels, run);
  const F = vec(width, 'f32');
  const parameter = (name: string, ref: B): BufferBinding<B> => ({ name, ref, element: F, write: false });

  const buffers: BufferBinding<B>[] = [
    read('x', call.x),
    { name: 'weight', ref: call.weight, element: pairs ? vec(width, 'u32') : F, write: false },
  ];
  if (call.bias !== undefined) buffers.push(parameter('bias', call.bias));
  if (call.slope !== undefined) buffers.push(parameter('slope', call.slope));
  if (residual)
    buffers.push({
      name: 'residual',
      ref: residual.ref,
      element: laneElement(width, residual.dtype),
      write: false,
    });
  buffers.push({ name: 'y', ref: call.y.ref, element: laneElement(width, call.y.dtype), write: true });

  const pointwise = isPointwise(s);
  const depth = s.inChannels === 3 ? 3 : 4;
  const body = `
${pairs ? halves(width) : ''}
${finish({ ...call, residual }, width)}
${pointwise ? '' : DIVIDE}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.out_q * 4u / ${width}u;
  let wanted = group.z * ${lanes}u + lane;
  let channel = min(wanted, per_row - 1u);
  ${call.bias !== undefined ? 'let bias_here = bias[channel];' : ''}
  ${call.slope !== undefined ? 'let slope_here = slope[channel];' : ''}
  let begin = (group.x + group.y * 65535u) * params.run;
  for (var first = begin; first < min(begin + params.run, params.pixels); first += ${lanes * blocks}u) {
${lines(blocks, (b) => `    let m${b} = min(first + ${b * lanes}u + lane, params.pixels - 1u);`)}
${lines(blocks * lanes, (i) => `    var s${i} = ${F}(0.0);`)}
    let more = first + ${lanes}u < params.pixels;
    var at = channel;
${pointwise ? pointwiseLoop(lanes, width, blocks, pairs) : spatialLoop(lanes, width, blocks, pairs, depth)}
    // A lane without channels of its own goes on: it hands pixels to the others.
    if (wanted < per_row) {
${storeAll(lanes * blocks, call)}
    }
  }
}`;
  return [
    {
      label: `conv2d.forward.subgroup ${pointwise ? '1×1 ' : ''}${width}×${blocks}${depth === 3 && !pointwise ? ' of 3' : ''}${pairs ? ' f16' : ''}`,
      // Bounds come from uniforms and the early return is uniform over the one subgroup of a workgroup.
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: {
        ...geometryUniforms(s),
        per_width: f32(1 / s.outWidth),
        per_map: f32(1 / (s.outWidth * s.outHeight)),
        ...addsUniform(call),
        run: u32(run),
      },
      buffers,
      body,
      workgroups: [Math.min(pixelRuns, 65535), ceilDiv(pixelRuns, 65535), channelTiles],
      flops: convFlops(s),
      bytes: convBytes(
        call,
        s.kernelHeight *
          s.kernelWidth *
          quads(s.inChannels) *
          4 *
          quads(s.outChannels) *
          bytesPerQuad(pairs ? 'f16' : 'f32'),
      ),
    },
  ];
}

function pointwiseLoop(lanes: number, width: number, blocks: number, pairs: boolean): string {
  return `${lines(blocks, (b) => `  var p${b} = m${b} * params.in_q;`)}
  for (var c = 0u; c < params.in_q; c++) {
${weightLoads(pairs)}
${multiplyAdd(lanes, width, blocks, (b) => `    let x${b} = load_x(p${b} + c);`)}
  }`;
}

function spatialLoop(lanes: number, width: number, blocks: number, pairs: boolean, depth: number): string {
  return `${lines(
    blocks,
    (b) => `  let row${b} = divide(m${b}, params.out_w, params.per_width);
  let n${b} = divide(m${b}, params.out_w * params.out_h, params.per_map);
  let ox${b} = (m${b} - row${b} * params.out_w) * params.stride - params.padding;
  let oy${b} = (row${b} - n${b} * params.out_h) * params.stride - params.padding;`,
  )}
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    for (var kx = 0u; kx < params.kernel_w; kx++) {
${lines(
  blocks,
  (b) => `      let iy${b} = oy${b} + ky * params.dilation;
      let ix${b} = ox${b} + kx * params.dilation;
      // Unsigned wrap-around makes a negative coordinate large, so that one comparison tests both borders.
      let in${b} = iy${b} < params.in_h && ix${b} < params.in_w;
      let p${b} = select(0u, ((n${b} * params.in_h + iy${b}) * params.in_w + ix${b}) * params.in_q, in${b});`,
)}
      for (var c = 0u; c < params.in_q; c++) {
${weightLoads(pairs, depth)}
${multiplyAdd(lanes, width, blocks, (b) => `        let x${b} = select(vec4<f32>(0.0), load_x(p${b} + c), in${b});`, depth)}
      }
    }
  }`;
}

/**
 * A store and a load of the residual are most of what the driver compiles (each is unrolled over the lanes), so they are
 * written once, in a loop: accumulators have names while they are summed, for registers have no index, and are an array
 * after that. The loop counts pixels, not elements: from a bound like min(16, …) Mesa would see how often to unroll it.
 */
export const sumsArray = (pixels: number) =>
  `  var sums = array(${range(pixels)
    .map((i) => `s${i}`)
    .join(', ')});`;

function storeAll<B>(pixels: number, call: Conv2dCall<B>): string {
  const extra = `${call.bias !== undefined ? ', bias_here' : ''}${call.slope !== undefined ? ', slope_here' : ''}`;
  return `${sumsArray(pixels)}
  var to = first * per_row + channel;
  for (var m = first; m < min(first + ${pixels}u, params.pixels); m++) {
    finish(sums[m - first]${extra}, to);
    to += per_row;
  }`;
}

/**
 * What lane `lane` holds. A shuffle, for the driver makes one permutation of it, where after a broadcast it also asks whether
 * that lane is there.
 */
export const handed = (x: string, lane: number) => `subgroupShuffle(${x}, ${lane}u)`;

/**
 * The products of a turn for a tile of `blocks` pixels a lane, in two parts: the first pixel's, and only if the tile goes on
 * (the text around declares `more`), all others'. Of two smaller parts the driver's compiler also makes faster code.
 *
 * @param load declares `x0` … `x{blocks − 1}` where it is called with their numbers.
 * @param depth channels of the quad that hold something: three where a picture goes in.
 */
export function multiplyAdd(
  lanes: number,
  width: number,
  blocks: number,
  load: (block: number) => string,
  depth = 4,
): string {
  const F = vec(width, 'f32');
  const product = (b: number, lane: number) => {
    const i = b * lanes + lane;
    const sum = range(depth).reduce((inner, k) => `fma(${F}(p.${'xyzw'[k]}), w${k}, ${inner})`, `s${i}`);
    return `        { let p = ${handed(`x${b}${depth === 3 ? '.xyz' : ''}`, lane)}; s${i} = ${sum}; }`;
  };
  const part = (of: number[]) => `{
${of.map(load).join('\n')}
${of.map((b) => lines(lanes, (lane) => product(b, lane))).join('\n')}
      }`;
  const others = range(blocks).slice(1);
  // Always so, but the driver does not know it: with three products in a row a block of its own for this part is faster, too.
  const own = depth === 3 ? 'if (first < params.pixels) ' : '';
  return `      ${own}${part([0])}${others.length > 0 ? `\n      if (more) ${part(others)}` : ''}`;
}

/** w0 … w3: this lane's weights for the four depth steps of an input quad. */
export function weightLoads(pairs: boolean, depth = 4): string {
  const skip = depth === 3 ? '    at += per_row;' : '';
  if (!pairs) return `${lines(depth, (j) => `    let w${j} = weight[at]; at += per_row;`)}\n${skip}`;
  return lines(
    2,
    (j) =>
      `    let h${j} = halves(weight[at]); at += per_row; let w${2 * j} = h${j}[0]; let w${2 * j + 1} = h${j}[1];`,
  );
}

/** Splits `width` u32 of f16 pairs into the even and the odd depth step. */
export function halves(width: number): string {
  const F = vec(width, 'f32');
  const parts = (k: string) => `${F}(${range(width).map((i) => `h${i}.${k}`)})`;
  return `fn halves(u: ${vec(width, 'u32')}) -> array<${F}, 2> {
${lines(width, (i) => `  let h${i} = unpack2x16float(u${width === 1 ? '' : `[${i}]`});`)}
  return array<${F}, 2>(${parts('x')}, ${parts('y')});
}`;
}

/** Element of a map when a lane reads or writes `width` channels of it. */
export function laneElement(width: number, dtype: FloatType): string {
  if (dtype === 'f32') return vec(width, 'f32');
  return width === 4 ? 'vec2<u32>' : 'u32';
}

function finish<B>(call: Conv2dCall<B>, width: number): string {
  const F = vec(width, 'f32');
  const has = (name: 'bias' | 'slope') => (call[name] !== undefined ? `, ${name}_here: ${F}` : '');
  const out = [`fn finish(sum: ${F}${has('bias')}${has('slope')}, i: u32) {`, '  var v = sum;'];
  if (call.bias !== undefined) out.push('  v += bias_here;');
  if (call.activation === 'relu') out.push(`  v = max(v, ${F}(0.0));`);
  if (call.activation === 'prelu') out.push(`  v = max(v, ${F}(0.0)) + slope_here * min(v, ${F}(0.0));`);
  if (call.residual) {
    const value =
      call.residual.dtype === 'f32'
        ? 'residual[i]'
        : width === 4
          ? 'vec4<f32>(unpack2x16float(residual[i].x), unpack2x16float(residual[i].y))'
          : 'unpack2x16float(residual[i])';
    out.push(`  if (params.adds != 0u) { v += ${value}; }`);
  }
  if (call.y.dtype === 'f32') out.push('  y[i] = v;');
  else {
    out.push(`  let c = clamp(v, ${F}(-65504.0), ${F}(65504.0));`);
    out.push(
      width === 4
        ? '  y[i] = vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));'
        : '  y[i] = pack2x16float(c);',
    );
  }
  out.push('}');
  return out.join('\n');
}
