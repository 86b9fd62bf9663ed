/**
 * The GEMM that a convolution and its two gradients share on hardware GPUs:
 *
 *   c[m, n] = Σ_k a[m, k] · b[k, n]
 *
 * A workgroup makes a square tile of c in steps of some depth. Every invocation loads as many quads of a as of b a step, and
 * loads the next step's into registers before it multiplies this step's: the loads' latency hides behind the
 * multiplications, with one tile in workgroup memory.
 *
 * Who uses it says what its loads mean; `Gemm` has the texts. In the forward pass m is an output pixel, k tap and
 * input channel, n an output channel. Two kernels take the same texts: `tiledGemm` here multiplies in f32 with vectors,
 * `matrixGemm` (matrix.ts) in f16 with the device's matrix units.
 *
 * In `tiledGemm` a workgroup of, say, 64 invocations makes 64×64 in steps of 16 in depth. Each step's 64×16 of a and 16×64
 * of b lie in workgroup memory as quads of rows and of columns, depth by depth, so that two vec4 of each feed 64
 * multiply-adds of an invocation, which holds 8 rows by 2 quads of c in registers. The sixteen depths are written out: a
 * card's compiler then loads the next operands while it multiplies.
 */
import type { FloatType } from '../../gpu/kernel_call.js';
import type { DeviceTraits, TileSide, Tuning } from '../../gpu/traits.js';
import { ceilDiv } from '../tensor.js';
import { lines, range } from './subgroup.js';

/** A tile of c as `side` × `side`, made in steps of `depth` by so many invocations. */
export interface Tile {
  readonly side: number;
  readonly depth: number;
  readonly invocations: number;
  /** Rows, columns and depth of what a matrix unit multiplies; without them, vectors do. */
  readonly m?: number;
  readonly n?: number;
  readonly k?: number;
}

/** The tiles of `tiledGemm`. Of all, every invocation loads four quads of a and of b a step. */
export const TILES: Readonly<Record<TileSide, Tile>> = {
  32: { side: 32, depth: 32, invocations: 64 },
  64: { side: 64, depth: 16, invocations: 64 },
  128: { side: 128, depth: 32, invocations: 256 },
};
export const PLAIN = TILES[64];

/** For NVIDIA's H100 and H200, and what was not measured. */
export const UNTUNED: Tuning = { side: 64, workgroups: 128 };
export const tuningOf = (traits: DeviceTraits): Tuning => traits.tuning ?? UNTUNED;

/** Whether a GEMM of so many rows and columns uses enough of a tile; below, one invocation a quad does better. */
export const fillsTile = (rows: number, columns: number): boolean =>
  rows >= PLAIN.side / 4 && columns >= PLAIN.side / 4;

/**
 * Whether tiles larger than 64×64 have enough to do: they are faster where they leave as many as fill the device.
 * @param splits parts of the sum that workgroups of their own take.
 */
export const fillsLarge = (
  side: number,
  rows: number,
  columns: number,
  traits: DeviceTraits,
  splits: number,
): boolean =>
  rows > 64 &&
  columns > 64 &&
  ceilDiv(rows, side) * ceilDiv(columns, side) * splits >= tuningOf(traits).workgroups;

/** Whether the device's limits allow the workgroups of a tile of `tiledGemm`. */
export const isAllowed = ({ side, depth, invocations }: Tile, traits: DeviceTraits): boolean =>
  invocations <= traits.maxInvocations && 2 * side * depth * 4 <= traits.maxWorkgroupBytes;

/** The tile of `tiledGemm` for c of so many rows and columns; `splits` as above. */
export function plainTile(rows: number, columns: number, traits: DeviceTraits, splits = 1): Tile {
  const tile = TILES[tuningOf(traits).side];
  const isFilled = tile.side <= 64 || fillsLarge(tile.side, rows, columns, traits, splits);
  return isFilled && isAllowed(tile, traits) ? tile : PLAIN;
}

export interface Gemm {
  /** Functions in front of `main`. */
  functions: string;
  /**
   * Once: what loads need, and `depth`, the length of the sum in quads (the same for the whole workgroup). It has
   * `group`, the workgroup's place, and `t`, the invocation's number.
   */
  setup: string;
  /**
   * Each step: loads a0, a1 … and b0, b1 …, of type `Quad`, and goes on to the next step. What lies beyond a border or the
   * depth is loaded from anywhere: a load that waits for a condition waits in a branch of its own, of which a step would
   * have eight.
   */
  fetch: string;
  /** The variable that says whether quad j of an operand counts, or zeros take its place. */
  counts: { a: (j: number) => string; b: (j: number) => string };
  /** How they lie: see `placesIn`. */
  a: 'rows' | 'blocks';
  b: 'rows' | 'blocks';
  /** Stores `v`, the quad of columns `column` (in tiles of side / 4 quads) of row `row` (in tiles of `side`). */
  store: string;
}

/**
 * Where the quads that an invocation loads lie in the tile, as WGSL (text) or as numbers. Quad j of
 *  - a `rows`: row `aRow(j)`, depth quad `quad`;
 *  - a `blocks`: a quad of rows 4·`across` + 0 … 3 at depth 4·`down` + `deeper(j)`;
 *  - b `rows`: the column quad `across` at depth 4·`down` + `deeper(j)`;
 *  - b `blocks`: the depth quad `quad` of column 4·`line` + `further(j)`.
 *
 * Neighbours read neighbouring quads of memory.
 */
export function placesIn({ side, depth, invocations }: Tile) {
  const columns = side / 4;
  const quads = depth / 4;
  return {
    /** Quads of a that an invocation loads, and of b: a multiple of four. */
    loads: (side * quads) / invocations,
    quad: `t % ${quads}u`,
    line: `t / ${quads}u`,
    aRow: (j: number) => `(t / ${quads}u + ${(j * invocations) / quads}u)`,
    further: (j: number) => Math.floor(j / 4) * ((4 * invocations) / quads) + (j % 4),
    across: `t % ${columns}u`,
    down: `t / ${columns}u`,
    deeper: (j: number) => Math.floor(j / 4) * ((4 * invocations) / columns) + (j % 4),
  };
}

/**
 * The texts of loads of b, four quads at a time that lie `params.out_q` apart in memory and count or not together.
 * @param loads quads that an invocation loads.
 * @param counts whether four of them count, the h-th of the invocation's.
 * @param first the index of the first.
 */
export function foursOfB(
  loads: number,
  counts: (h: number) => string,
  first: (h: number) => string,
  load: (index: string) => string,
) {
  return {
    setup: lines(loads / 4, (h) => `  var b_counts${h} = false;`),
    fetch: lines(
      loads / 4,
      (h) => `      b_counts${h} = ${counts(h)};
      let w${h} = select(0u, ${first(h)}, b_counts${h});
${lines(4, (i) => `      b${4 * h + i} = ${load(`w${h} + ${i}u * params.out_q`)};`)}`,
    ),
    counts: (j: number) => `b_counts${Math.floor(j / 4)}`,
  };
}

/** What a quad that was fetched counts as. */
export const counted = (gemm: Gemm, name: 'a' | 'b', j: number): string =>
  `select(Quad(), ${name}${j}, ${gemm.counts[name](j)})`;

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

export function tiledGemm(gemm: Gemm, tile: Tile): string {
  const { side, depth, invocations } = tile;
  const at = placesIn(tile);
  /** Quads of a side of the tile; rows, and columns, of c that an invocation makes, in quads. */
  const quads = side / 4;
  const made = quads / Math.sqrt(invocations);
  /**
   * Quads that are turned round come from `depth / 4` neighbours for each quad of rows. So that these write to different
   * banks, a depth quad's places are exchanged among themselves by an exclusive or.
   */
  const exchanged = (place: string, depthQuad: string) => `((${place}) ^ (${depthQuad} * ${32 / depth}u))`;
  const isTurned = { a: gemm.a === 'rows', b: gemm.b === 'blocks' };
  const kept = (name: 'a' | 'b', j: number) => `let ${name}_${j} = ${counted(gemm, name, j)};`;
  const place = (name: 'a' | 'b', j: number) =>
    isTurned[name]
      ? `${name}_tile[(${at.quad} * 4u + ${j}u) * ${quads}u + ${exchanged(at.line, at.quad)}] = ${turned(`${name}_`, j)};`
      : `${name}_tile[(${at.down} * 4u + ${j}u) * ${quads}u + ${at.across}] = ${name}_${j};`;
  const load = (name: 'a' | 'b', lane: string, h: number, k: number) => {
    const quad = `${lane} + ${(h * quads) / made}u`;
    return `${name}_tile[${k * quads}u + ${isTurned[name] ? exchanged(quad, `${Math.floor(k / 4)}u`) : quad}]`;
  };
  /** A quad of rows that was turned round has rows a quarter of the side apart (see aRow). */
  const row = (i: number) => {
    const quad = `(y + ${(Math.floor(i / 4) * quads) / made}u)`;
    return isTurned.a ? `${quad} + ${(i % 4) * quads}u` : `${quad} * 4u + ${i % 4}u`;
  };
  const each = (f: (i: number, h: number) => string) => lines(4 * made, (i) => lines(made, (h) => f(i, h)));
  return `
alias Quad = vec4<f32>;
var<workgroup> a_tile: array<Quad, ${depth * quads}>;
var<workgroup> b_tile: array<Quad, ${depth * quads}>;
${gemm.functions}
@compute @workgroup_size(${invocations})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let x = t % ${quads / made}u;
  let y = t / ${quads / made}u;
${each((i, h) => `  var s${i}_${h} = Quad();`)}
${lines(at.loads, (j) => `  var a${j} = Quad(); var b${j} = Quad();`)}
${gemm.setup}
  let steps = (depth + ${depth / 4 - 1}u) / ${depth / 4}u;
  {
${gemm.fetch}
  }
  for (var step = 1u; step <= steps; step++) {
    {
${lines(at.loads, (j) => `      ${kept('a', j)} ${kept('b', j)}`)}
${lines(at.loads, (j) => `      ${place('a', j)} ${place('b', j)}`)}
    }
    workgroupBarrier();
    if (step < steps) {
${gemm.fetch}
    }
${lines(
  depth,
  (k) => `    {
${lines(made, (h) => `      let x${h} = ${load('a', 'y', h, k)}; let y${h} = ${load('b', 'x', h, k)};`)}
${each((i, h) => `      s${i}_${h} = fma(Quad(x${Math.floor(i / 4)}[${i % 4}]), y${h}, s${i}_${h});`)}
    }`,
)}
    workgroupBarrier();
  }
${each((i, h) => `  { let row = ${row(i)}; let column = x + ${(h * quads) / made}u; let v = s${i}_${h}; ${gemm.store} }`)}
}`;
}
