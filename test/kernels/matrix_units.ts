/**
 * Matrix units by ordinary WGSL, so that what surrounds them is tested on devices without any: 32 invocations take the
 * part of a subgroup, each multiplies its share of a result's elements from workgroup memory.
 */
import type { KernelCall } from '../../src/gpu/kernel_call.js';
import type { DeviceTraits, MatrixShape } from '../../src/gpu/traits.js';

const SHAPE: MatrixShape = { m: 16, n: 16, k: 16 };

/** A card with matrix units as far as plans can tell. */
export const withUnits = (traits: DeviceTraits): DeviceTraits => ({
  ...traits,
  kind: 'gpu',
  subgroups: true,
  subgroupSize: 32,
  subgroupMatrix: SHAPE,
});

export const NO_F16 = 'the device does not compute in f16 (shader-f16), which even the emulation does';
export const NO_UNITS = 'the device has no matrix units for f16 (GpuOptions.matrixUnits)';

/**
 * Steps of rounding to allow for in a sum of products of halves, which are exact in f32: units may cut off what they add
 * to the sum, twice the error of rounding.
 */
export const truncated = (terms: number): number => 2 * terms;

const replaced = (text: string, from: string | RegExp, to: string): string => {
  const out = text.replaceAll(from, to);
  if (out === text) throw new Error(`the kernel has no ${from}`);
  return out;
};

/** The call with its units emulated; others as they are. */
export function emulated<B>(call: KernelCall<B>): KernelCall<B> {
  if (!call.label.endsWith('.matrix')) return call;
  const { m, n, k } = SHAPE;
  let { body } = call;
  body = replaced(body, /alias (Left|Right|Result) = .*\n/g, '');
  // An operand's rows or its columns lie a stride apart.
  body = replaced(
    body,
    /subgroupMatrixLoad<(?:Left|Right), row_major>\(&[ab]_tile, (.*), (\d+u)\)/g,
    'Operand($1, $2 * 4u, 1u)',
  );
  body = body.replaceAll(
    /subgroupMatrixLoad<(?:Left|Right), col_major>\(&[ab]_tile, (.*), (\d+u)\)/g,
    'Operand($1, 1u, $2 * 4u)',
  );
  body = replaced(body, 'subgroupMatrixMultiplyAccumulate(', 'multiply_add(');
  body = replaced(body, 'subgroupMatrixStore<row_major>(&c_tile, ', 'put(');
  body = replaced(
    body,
    /, @builtin\(subgroup_id\) unit: u32\) \{/g,
    ') {\n  let unit = t / 32u;\n  lane = t % 32u;',
  );
  return {
    ...call,
    directives: ['enable f16;'],
    body: `
alias Result = array<f32, ${(m * n) / 32}>;
struct Operand { at: u32, row: u32, column: u32 }
var<private> lane: u32;
// No constant as far as the driver can tell, which would unroll the loops a thousandfold.
fn bound(n: u32) -> u32 { return n + params.pixels / 0xffffffffu; }
fn multiply_add(l: Operand, r: Operand, sum: Result) -> Result {
  var out = sum;
  for (var e = 0u; e < bound(${(m * n) / 32}u); e++) {
    let i = (e * 32u + lane) / ${n}u;
    let j = (e * 32u + lane) % ${n}u;
    for (var d = 0u; d < bound(${k}u); d++) {
      let p = i * l.row + d * l.column;
      let q = d * r.row + j * r.column;
      out[e] += f32(a_tile[l.at + p / 4u][p % 4u]) * f32(b_tile[r.at + q / 4u][q % 4u]);
    }
  }
  return out;
}
fn put(at: u32, values: Result, stride: u32) {
  var copy = values;
  for (var e = 0u; e < bound(${(m * n) / 32}u); e++) {
    let i = (e * 32u + lane) / ${n}u;
    let j = (e * 32u + lane) % ${n}u;
    c_tile[at + i * stride + j / 4u][j % 4u] = copy[e];
  }
}
${body}`,
  };
}
