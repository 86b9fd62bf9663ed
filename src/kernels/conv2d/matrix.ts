/**
 * The GEMM of gemm.ts by matrix units: `subgroupMatrixMultiplyAccumulate` of Dawn's experimental extension
 * `chromium_experimental_subgroup_matrix`. Operands are rounded to f16 on their way to workgroup memory, products and
 * sums are f32.
 *
 * The workgroup's subgroups share its tile of c in equal rectangles, each of whose results stays in registers until the
 * sum is done. Operands that come as blocks are not turned round: the units load a and b along either side. Rows of both
 * are padded by 16 bytes, so that a unit's rows lie in different banks and start where the units may load, at multiples
 * of 16 bytes. The results leave through workgroup memory, one matrix of every subgroup at a time, so that the epilogue
 * sees quads as it does in `tiledGemm`.
 */
import type { DeviceTraits, MatrixShape } from '../../gpu/traits.js';
import { counted, fillsLarge, fillsTile, type Gemm, placesIn, type Tile, tiledGemm } from './gemm.js';
import { lines } from './subgroup.js';

/** Invocations of a subgroup; traits name no matrix units where they are more, fewer or not known. */
const SUBGROUP = 32;
/** Halves that pad a row of the operands' tiles, and floats that pad one of the results'. */
const PAD = 8;
const RESULT_PAD = 4;

export interface GemmKernel {
  /** Part of the label. */
  name: 'tiled' | 'matrix';
  directives: readonly string[];
  body: string;
}

/** The kernel of a tile: by vectors, or by matrix units where the tile has their shape. */
export function gemmKernel(tile: Tile, gemm: Gemm): GemmKernel {
  const { m, n, k } = tile;
  if (m === undefined || n === undefined || k === undefined)
    return { name: 'tiled', directives: [], body: tiledGemm(gemm, tile) };
  return { name: 'matrix', directives: DIRECTIVES, body: matrixGemm(gemm, { ...tile, m, n, k }) };
}

const DIRECTIVES = ['enable f16;', 'enable subgroups;', 'enable chromium_experimental_subgroup_matrix;'];

/** How the subgroups of a workgroup share its tile: their number along the columns, and the rectangle of each. */
function sharesOf(tile: Tile) {
  const subgroups = tile.invocations / SUBGROUP;
  const down = 2 ** Math.floor(Math.log2(subgroups) / 2);
  const across = subgroups / down;
  return { subgroups, across, rows: tile.side / down, columns: tile.side / across };
}

/** An operand's tile is an array of lines, along the depth or along the other side, and one more that units may read. */
function linesOf(tile: Tile, isDeep: boolean) {
  const [lines, length] = isDeep ? [tile.side, tile.depth] : [tile.depth, tile.side];
  const stride = length + PAD;
  return { stride, halves: (lines + 1) * stride };
}

/** Bytes of workgroup memory that the kernel of a tile takes at most. */
function bytesOf(tile: Tile & MatrixShape): number {
  const operand = Math.max(linesOf(tile, true).halves, linesOf(tile, false).halves);
  return 2 * operand * 2 + sharesOf(tile).subgroups * tile.m * (tile.n + RESULT_PAD) * 4;
}

/** The tile of a side that is a multiple of 64: 128 is faster, where it leaves enough tiles. */
export const tileOf = (side: number, shape: MatrixShape): Tile & MatrixShape => ({
  side,
  depth: 32,
  invocations: 128,
  ...shape,
});

/**
 * The tile for c of so many rows and columns and a sum so long, if the device has units and they have enough to do.
 * @param splits parts of the sum that workgroups of their own take.
 */
export function matrixTile(
  rows: number,
  columns: number,
  depth: number,
  traits: DeviceTraits,
  splits = 1,
): Tile | undefined {
  const shape = traits.subgroupMatrix;
  if (!shape || traits.kind !== 'gpu' || !fillsTile(rows, columns) || depth < 32) return undefined;
  const fits = (side: number) => {
    const tile = tileOf(side, shape);
    const allowed = tile.invocations <= traits.maxInvocations && bytesOf(tile) <= traits.maxWorkgroupBytes;
    return allowed && (side === 64 || fillsLarge(side, rows, columns, traits, splits)) ? tile : undefined;
  };
  return fits(128) ?? fits(64);
}

export function matrixGemm(gemm: Gemm, tile: Tile & MatrixShape): string {
  const { depth, m, n, k } = tile;
  const at = placesIn(tile);
  const size = tile.invocations;
  const { subgroups, across, rows, columns } = sharesOf(tile);
  const a = linesOf(tile, gemm.a === 'rows');
  const b = linesOf(tile, gemm.b === 'blocks');
  const array = (type: string, length: number) => `array<vec4<${type}>, ${length / 4}>`;
  const quad = (name: 'a' | 'b', j: number, index: string) =>
    `    ${name}_tile[(${index}) / 4u] = ${counted(gemm, name, j)};`;
  /** Where a matrix begins and the stride of its lines, in elements of the array. */
  const from = (index: string, stride: number) => `(${index}) / 4u, ${stride / 4}u`;
  const place = {
    a: (j: number) =>
      gemm.a === 'rows'
        ? `${at.aRow(j)} * ${a.stride}u + ${at.quad} * 4u`
        : `(${at.down} * 4u + ${at.deeper(j)}u) * ${a.stride}u + ${at.across} * 4u`,
    b: (j: number) =>
      gemm.b === 'rows'
        ? `(${at.down} * 4u + ${at.deeper(j)}u) * ${b.stride}u + ${at.across} * 4u`
        : `(${at.line} * 4u + ${at.further(j)}u) * ${b.stride}u + ${at.quad} * 4u`,
  };
  const left = (i: number, d: number) =>
    gemm.a === 'rows'
      ? `subgroupMatrixLoad<Left, row_major>(&a_tile, ${from(`(unit_row + ${i * m}u) * ${a.stride}u + ${d}u`, a.stride)})`
      : `subgroupMatrixLoad<Left, col_major>(&a_tile, ${from(`${d * a.stride}u + unit_row + ${i * m}u`, a.stride)})`;
  const right = (i: number, d: number) =>
    gemm.b === 'rows'
      ? `subgroupMatrixLoad<Right, row_major>(&b_tile, ${from(`${d * b.stride}u + unit_column + ${i * n}u`, b.stride)})`
      : `subgroupMatrixLoad<Right, col_major>(&b_tile, ${from(`(unit_column + ${i * n}u) * ${b.stride}u + ${d}u`, b.stride)})`;
  const [down, wide] = [rows / m, columns / n];
  const each = (f: (i: number, j: number) => string) => lines(down, (i) => lines(wide, (j) => f(i, j)));
  const resultStride = n + RESULT_PAD;
  return `
alias Quad = vec4<f16>;
alias Left = subgroup_matrix_left<f16, ${k}, ${m}>;
alias Right = subgroup_matrix_right<f16, ${n}, ${k}>;
alias Result = subgroup_matrix_result<f32, ${n}, ${m}>;
var<workgroup> a_tile: ${array('f16', a.halves)};
var<workgroup> b_tile: ${array('f16', b.halves)};
var<workgroup> c_tile: ${array('f32', subgroups * m * resultStride)};
${gemm.functions}
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32, @builtin(subgroup_id) unit: u32) {
  let unit_row = unit / ${across}u * ${rows}u;
  let unit_column = unit % ${across}u * ${columns}u;
${each((i, j) => `  var s${i}_${j} = Result();`)}
${lines(at.loads, (j) => `  var a${j} = Quad(); var b${j} = Quad();`)}
${gemm.setup}
  let steps = (depth + ${depth / 4 - 1}u) / ${depth / 4}u;
  {
${gemm.fetch}
  }
  for (var step = 1u; step <= steps; step++) {
${lines(at.loads, (j) => `${quad('a', j, place.a(j))}\n${quad('b', j, place.b(j))}`)}
    workgroupBarrier();
    if (step < steps) {
${gemm.fetch}
    }
${lines(
  depth / k,
  (d) => `    {
${lines(down, (i) => `      let l${i} = ${left(i, d * k)};`)}
${lines(
  wide,
  (j) => `      {
        let r = ${right(j, d * k)};
${lines(down, (i) => `        s${i}_${j} = subgroupMatrixMultiplyAccumulate(l${i}, r, s${i}_${j});`)}
      }`,
)}
    }`,
)}
    workgroupBarrier();
  }
${each(
  (
    i,
    j,
  ) => `  subgroupMatrixStore<row_major>(&c_tile, unit * ${(m * resultStride) / 4}u, s${i}_${j}, ${resultStride / 4}u);
  workgroupBarrier();
${lines((m * n) / 4 / SUBGROUP, (h) => {
  const index = `(t + ${h * size}u)`;
  const [perUnit, perRow] = [(m * n) / 4, n / 4];
  return `  {
    let owner = ${index} / ${perUnit}u;
    let line = ${index} / ${perRow}u % ${m}u;
    let row = owner / ${across}u * ${rows}u + ${i * m}u + line;
    let column = (owner % ${across}u * ${columns}u + ${j * n}u) / 4u + ${index} % ${perRow}u;
    let v = c_tile[(owner * ${m}u + line) * ${resultStride / 4}u + ${index} % ${perRow}u];
    ${gemm.store}
  }`;
})}
  workgroupBarrier();`,
)}
}`;
}
