/**
 * A sum that one workgroup makes: lane l takes terms l, l + lanes, …, then the lanes' results are joined in pairs in
 * workgroup memory. One lane makes a plain loop: best on a software adapter, while on a card the loads of a lone
 * invocation wait for each other, a few hundred nanoseconds each. The order is fixed, so a run repeats bit for bit.
 */
export interface Fold {
  /** Declarations in front of `main`. */
  memory: string;
  /** The sum itself; needs `lane` where there are several, and uniform control flow. After it only lane 0 goes on. */
  sum: string;
}

/**
 * @param lanes invocations of the workgroup, a power of two.
 * @param state variables of the sum, zero at first.
 * @param count WGSL: how many terms.
 * @param each WGSL that takes in term `k`.
 * @param join WGSL that takes in the state of another lane, `other_NAME`. By default they are added.
 */
export function fold(
  lanes: number,
  state: Readonly<Record<string, 'f32' | 'vec4<f32>'>>,
  count: string,
  each: string,
  join = Object.keys(state)
    .map((name) => `${name} += other_${name};`)
    .join(' '),
): Fold {
  const variables = Object.entries(state);
  const lines = (text: (name: string, type: string) => string) =>
    variables.map(([name, type]) => text(name, type)).join('\n');
  const begin = lines((name, type) => `  var ${name} = ${type}(0.0);`);
  if (lanes === 1)
    return { memory: '', sum: `${begin}\n  for (var k = 0u; k < ${count}; k++) {\n${each}\n  }` };
  return {
    memory: lines((name, type) => `var<workgroup> lanes_${name}: array<${type}, ${lanes}>;`),
    sum: `${begin}
  for (var k = lane; k < ${count}; k += ${lanes}u) {
${each}
  }
${lines((name) => `  lanes_${name}[lane] = ${name};`)}
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
${lines((name) => `      let other_${name} = lanes_${name}[lane + half];`)}
      ${join}
${lines((name) => `      lanes_${name}[lane] = ${name};`)}
    }
  }
  if (lane != 0u) { return; }`,
  };
}
