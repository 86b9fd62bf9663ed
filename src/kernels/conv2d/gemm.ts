/**
 * The GEMM that a convolution and its two gradients share on hardware GPUs:
 *
 *   c[m, n] = Σ_k a[m, k] · b[k, n]
 *
 * A workgroup makes a square tile of c in steps of some depth. Every invocation loads 4 quads of a and 4 of b a step, and
 * loads the next step's into registers before it multiplies this step's: the loads' latency hides behind the
 * multiplications, with one tile in workgroup memory.
 *
 * Who uses it says what its loads mean; `Gemm` has the texts. In the forward pass m is an output pixel, k tap and
 * input channel, n an output channel. Two kernels take the same texts: `tiledGemm` here multiplies in f32 with vectors,
 * `matrixGemm` (matrix.ts) in f16 with the device's matrix units.
 *
 * In `tiledGemm` a workgroup of 8×8 invocations makes 64×64 in steps of 16 in depth. Each step's 64×16 of a and 16×64 of
 * b lie in workgroup memory as vec4, a along k and b along n, so that 16 vec4 read there feed 256 multiply-adds of an
 * invocation, which holds 8 rows by 2 quads of c in registers.
 */
import type { FloatType } from '../../gpu/kernel_call.js';
import { lines, range } from './subgroup.js';

/** A tile of c as `side` × `side`, made in steps of `depth` by `side · depth / 16` invocations. */
export interface Tile {
  readonly side: number;
  readonly depth: number;
  /** Rows, columns and depth of what a matrix unit multiplies; without them, vectors do. */
  readonly m?: number;
  readonly n?: number;
  readonly k?: number;
}

export const PLAIN: Tile = { side: 64, depth: 16 };
const { side: TILE, depth: DEPTH } = PLAIN;

export const invocationsOf = (tile: Tile): number => (tile.side * tile.depth) / 16;
/** Whether a GEMM of so many rows and columns uses enough of a tile; below, one invocation a quad does better. */
export const fillsTile = (rows: number, columns: number): boolean => rows >= TILE / 4 && columns >= TILE / 4;
/** Quads of a row of a's tile: one more than its depth, so that neighbouring rows lie in other banks. */
const STRIDE = DEPTH / 4 + 1;

export interface Gemm {
  /** Functions in front of `main`. */
  functions: string;
  /**
   * Once: what loads need, and `depth`, the length of the sum in quads (the same for the whole workgroup). It has
   * `group`, the workgroup's place, and `t`, the invocation's number.
   */
  setup: string;
  /** Each step: sets `a0` … `a3` and `b0` … `b3`, of type `Quad`, and goes on to the next step. Zeros beyond the depth. */
  fetch: string;
  /** How they lie: see `placesIn`. */
  a: 'rows' | 'blocks';
  b: 'rows' | 'blocks';
  /** Stores `v`, the quad of columns `column` (in tiles of side / 4 quads) of row `row` (in tiles of `side`). */
  store: string;
}

/**
 * Where the quads that an invocation loads lie in the tile, as WGSL. Quad j of
 *  - a `rows`: row `aRow(j)`, depth quad `aDepth(j)`;
 *  - a `blocks`: a quad of rows 4·`across` + 0 … 3 at depth 4·`down` + j;
 *  - b `rows`: the column quad `across` at depth 4·`down` + j;
 *  - b `blocks`: the depth quad `bDepth` of column 4·`bAcross` + j.
 *
 * For the matrix units, whose loads must keep up, neighbours read neighbouring quads of memory: four rows at one depth.
 * The vectors' kernel reads a row's quads one after the other, with the state of one pixel in registers.
 */
export function placesIn(tile: Tile) {
  const columns = tile.side / 4;
  const quads = tile.depth / 4;
  const spread = tile.m !== undefined;
  const [across, down] = [`t % ${columns}u`, `t / ${columns}u`];
  return {
    /** Rows of a `rows` that an invocation reads. */
    rows: spread ? 4 : 1,
    aRow: (j: number) => (spread ? `(t / ${quads}u + ${j * columns}u)` : 't'),
    aDepth: (j: number) => (spread ? `t % ${quads}u` : `${j}u`),
    aStart: spread ? `t % ${quads}u` : '0u',
    across,
    down,
    bAcross: spread ? `t / ${quads}u` : across,
    bDepth: spread ? `t % ${quads}u` : down,
  };
}

/** `fn quad_NAME(i)`: what `load_NAME(i)` gives, in the type that the tile is multiplied in. */
export function quadLoad(name: string, dtype: FloatType, tile: Tile): string {
  const value =
    tile.m === undefined
      ? `load_${name}(i)`
      : dtype === 'f16'
        ? `bitcast<vec4<f16>>(${name}[i])`
        : `vec4<f16>(load_${name}(i))`;
  return `fn quad_${name}(i: u32) -> Quad { return ${value}; }`;
}

/** Turns four quads round: element j of quad i becomes element i of quad j. */
const turned = (name: string, j: number) =>
  `vec4<f32>(${range(4)
    .map((i) => `${name}${i}[${j}]`)
    .join(', ')})`;

export function tiledGemm(gemm: Gemm): string {
  const place = {
    a: (j: number) =>
      gemm.a === 'rows'
        ? `a_tile[t * ${STRIDE}u + ${j}u] = a${j};`
        : `a_tile[(t % 16u * 4u + ${j}u) * ${STRIDE}u + t / 16u] = ${turned('a', j)};`,
    b: (j: number) =>
      `b_tile[(t / 16u * 4u + ${j}u) * 16u + t % 16u] = ${gemm.b === 'rows' ? `b${j}` : turned('b', j)};`,
  };
  return `
alias Quad = vec4<f32>;
var<workgroup> a_tile: array<vec4<f32>, ${TILE * STRIDE}>;
var<workgroup> b_tile: array<vec4<f32>, ${(DEPTH * TILE) / 4}>;
${gemm.functions}
@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let t = local.y * 8u + local.x;
${lines(8, (i) => `  var s${i}0 = vec4<f32>(0.0); var s${i}1 = vec4<f32>(0.0);`)}
${lines(4, (j) => `  var a${j} = Quad(); var b${j} = Quad();`)}
${gemm.setup}
  let steps = (depth + 3u) / 4u;
  {
${gemm.fetch}
  }
  for (var step = 1u; step <= steps; step++) {
${lines(4, (j) => `    ${place.a(j)} ${place.b(j)}`)}
    workgroupBarrier();
    if (step < steps) {
${gemm.fetch}
    }
    // The last step may be shorter. (A constant bound would be unrolled: four times the code for little speed.)
    for (var k = 0u; k < min(${DEPTH / 4}u, depth - (step - 1u) * ${DEPTH / 4}u); k++) {
${lines(8, (i) => `      let x${i} = a_tile[(local.y + ${8 * i}u) * ${STRIDE}u + k];`)}
${lines(
  4,
  (j) => `      {
        let y0 = b_tile[(k * 4u + ${j}u) * 16u + local.x];
        let y1 = b_tile[(k * 4u + ${j}u) * 16u + local.x + 8u];
${lines(8, (i) => `        s${i}0 = fma(vec4<f32>(x${i}[${j}]), y0, s${i}0); s${i}1 = fma(vec4<f32>(x${i}[${j}]), y1, s${i}1);`)}
      }`,
)}
    }
    workgroupBarrier();
  }
${lines(8, (i) =>
  range(2)
    .map(
      (h) =>
        `  { let row = local.y + ${8 * i}u; let column = local.x + ${8 * h}u; let v = s${i}${h}; ${gemm.store} }`,
    )
    .join('\n'),
)}
}`;
}
