/**
 * Convolution as implicit GEMM for software adapters, where a lane is a SIMD lane, a workgroup runs on one
 * core and every storage load costs as much as some eighty multiply-adds.
 *
 * A workgroup is one subgroup of L lanes. It computes L·W output channels for B·L pixels: lane l holds
 * channels l·W … l·W+W−1 of every pixel of the tile. Each lane loads the input quad of its own pixel and the
 * weights of its own channels; `subgroupBroadcast` with a constant lane then hands every pixel's quad round,
 * so that B + 4·W/4 vector loads feed 4·W·B·L multiply-adds. No workgroup memory, no barrier. Accumulators spill to L1,
 * which is why the four depth steps of a quad are added to one accumulator in a row.
 *
 * Weights: f32 [K][Op], or f16 pairs of two depth steps [K/2][Op] in u32 (half the load).
 */
import type { BufferBinding, KernelCall } from '../../gpu/kernel_call.js';
import { u32 } from '../../gpu/kernel_call.js';
import { bytesPerQuad, ceilDiv, quads, read } from '../tensor.js';
import { convBytes, convFlops, geometryUniforms } from './geometry.js';
import type { Conv2dCall, Conv2dPlan } from './types.js';

export interface SubgroupTile {
  lanes: number;
  /** Output channels a lane: 2 or 4. */
  width: number;
  /** Pixels a lane. */
  blocks: number;
}

const vec = (width: number, type: string) => `vec${width}<${type}>`;

export function conv2dSubgroup<B>(call: Conv2dCall<B>, plan: Conv2dPlan): KernelCall<B>[] {
  const s = call.shape;
  const { lanes, width, blocks } = plan.tile as unknown as SubgroupTile;
  const pairs = plan.packing === 'f16pairs';
  const pixels = s.batch * s.outHeight * s.outWidth;
  const channelTiles = ceilDiv(quads(s.outChannels) * 4, lanes * width);
  const pixelTiles = ceilDiv(pixels, lanes * blocks);
  const rows = Math.min(pixelTiles, 65535);
  const F = vec(width, 'f32');
  const parameter = (name: string, ref: B): BufferBinding<B> => ({ name, ref, element: F, write: false });

  const buffers: BufferBinding<B>[] = [
    read('x', call.x),
    { name: 'weight', ref: call.weight, element: pairs ? vec(width, 'u32') : F, write: false },
  ];
  if (call.bias !== undefined) buffers.push(parameter('bias', call.bias));
  if (call.slope !== undefined) buffers.push(parameter('slope', call.slope));
  if (call.residual)
    buffers.push({
      name: 'residual',
      ref: call.residual.ref,
      element: laneElement(width, call.residual.dtype),
      write: false,
    });
  buffers.push({ name: 'y', ref: call.y.ref, element: laneElement(width, call.y.dtype), write: true });

  const B = range(blocks);
  const L = range(lanes);
  const body = `
fn weights(at: u32) -> ${pairs ? vec(width, 'u32') : F} { return weight[at]; }
${pairs ? half(width) : ''}
${finish(call, width)}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let per_row = params.out_q * ${4 / width}u;
  let wanted = group.x * ${lanes}u + lane;
  let channel = min(wanted, per_row - 1u);
  let first = (group.y + group.z * 65535u) * ${lanes * blocks}u;
  if (first >= params.pixels) { return; }
${B.map(
  (b) => `  let m${b} = min(first + ${b * lanes}u + lane, params.pixels - 1u);
  let oy${b} = m${b} / params.out_w % params.out_h * params.stride - params.padding;
  let ox${b} = m${b} % params.out_w * params.stride - params.padding;
  let n${b} = m${b} / (params.out_w * params.out_h) * params.in_h;`,
).join('\n')}
${B.flatMap((b) => L.map((l) => `  var s${b}_${l} = ${F}(0.0);`)).join('\n')}
  var at = channel;
  for (var ky = 0u; ky < params.kernel_h; ky++) {
    for (var kx = 0u; kx < params.kernel_w; kx++) {
${B.map(
  (b) => `      let iy${b} = oy${b} + ky * params.dilation;
      let ix${b} = ox${b} + kx * params.dilation;
      let in${b} = iy${b} < params.in_h && ix${b} < params.in_w;
      let p${b} = select(0u, ((n${b} + iy${b}) * params.in_w + ix${b}) * params.in_q, in${b});`,
).join('\n')}
      for (var c = 0u; c < params.in_q; c++) {
${weightLoads(pairs)}
${B.map((b) => `        let x${b} = select(vec4<f32>(0.0), load_x(p${b} + c), in${b});`).join('\n')}
${B.flatMap((b) =>
  L.map(
    (l) =>
      `        { let p = subgroupBroadcast(x${b}, ${l}u); s${b}_${l} = fma(${F}(p.w), w3, fma(${F}(p.z), w2, fma(${F}(p.y), w1, fma(${F}(p.x), w0, s${b}_${l})))); }`,
  ),
).join('\n')}
      }
    }
  }
  if (wanted >= per_row) { return; }
${B.flatMap((b) =>
  L.map((l) => {
    const m = b * lanes + l;
    return `  if (first + ${m}u < params.pixels) { finish(s${b}_${l}, channel, (first + ${m}u) * per_row + channel); }`;
  }),
).join('\n')}
}`;
  return [
    {
      label: `conv2d.forward.subgroup ${width}×${blocks}${pairs ? ' f16' : ''}`,
      // Bounds come from uniforms and the early return is uniform over the one subgroup of a workgroup.
      directives: ['enable subgroups;', 'diagnostic(off, subgroup_uniformity);'],
      uniforms: { ...geometryUniforms(s), unused: u32(0) },
      buffers,
      body,
      workgroups: [channelTiles, rows, ceilDiv(pixelTiles, 65535)],
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

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

/** Element of a map when a lane reads or writes `width` channels of it. */
function laneElement(width: number, dtype: 'f32' | 'f16'): string {
  if (dtype === 'f32') return vec(width, 'f32');
  return width === 4 ? 'vec2<u32>' : 'u32';
}

/** w0 … w3: this lane's weights for the four depth steps of an input quad. */
function weightLoads(pairs: boolean): string {
  if (!pairs) {
    return range(4)
      .map((j) => `        let w${j} = weights(at); at += per_row;`)
      .join('\n');
  }
  return range(2)
    .map(
      (j) =>
        `        let u${j} = weights(at); at += per_row; let h${j} = halves(u${j}); let w${2 * j} = h${j}[0]; let w${2 * j + 1} = h${j}[1];`,
    )
    .join('\n');
}

/** Splits `width` u32 of f16 pairs into the even and the odd depth step. */
function half(width: number): string {
  const parts = (k: string) =>
    range(width)
      .map((i) => `h${i}.${k}`)
      .join(', ');
  return `fn halves(u: ${vec(width, 'u32')}) -> array<${vec(width, 'f32')}, 2> {
${range(width)
  .map((i) => `  let h${i} = unpack2x16float(u[${i}]);`)
  .join('\n')}
  return array<${vec(width, 'f32')}, 2>(${vec(width, 'f32')}(${parts('x')}), ${vec(width, 'f32')}(${parts('y')}));
}`;
}

function finish<B>(call: Conv2dCall<B>, width: number): string {
  const F = vec(width, 'f32');
  const lines = [`fn finish(sum: ${F}, channel: u32, i: u32) {`, '  var v = sum;'];
  if (call.bias !== undefined) lines.push('  v += bias[channel];');
  if (call.activation === 'relu') lines.push(`  v = max(v, ${F}(0.0));`);
  if (call.activation === 'prelu')
    lines.push(`  v = max(v, ${F}(0.0)) + slope[channel] * min(v, ${F}(0.0));`);
  if (call.residual) {
    const value =
      call.residual.dtype === 'f32'
        ? 'residual[i]'
        : width === 4
          ? 'vec4<f32>(unpack2x16float(residual[i].x), unpack2x16float(residual[i].y))'
          : 'unpack2x16float(residual[i])';
    lines.push(`  v += ${value};`);
  }
  if (call.y.dtype === 'f32') lines.push('  y[i] = v;');
  else {
    lines.push(`  let c = clamp(v, ${F}(-65504.0), ${F}(65504.0));`);
    lines.push(
      width === 4
        ? '  y[i] = vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw));'
        : '  y[i] = pack2x16float(c);',
    );
  }
  lines.push('}');
  return lines.join('\n');
}
