/** Columns `selection` of w [depth, classes]. */
export function gatherReference(
  w: ArrayLike<number>,
  classes: number,
  selection: readonly number[],
): Float64Array {
  const depth = w.length / classes;
  const y = new Float64Array(depth * selection.length);
  for (let k = 0; k < depth; k++)
    for (const [j, c] of selection.entries()) y[k * selection.length + j] = w[k * classes + c];
  return y;
}

/** Its gradient: dy's columns at their classes, zero elsewhere. */
export function gatherBackwardReference(
  dy: ArrayLike<number>,
  classes: number,
  selection: readonly number[],
): Float64Array {
  const depth = dy.length / selection.length;
  const dw = new Float64Array(depth * classes);
  for (let k = 0; k < depth; k++)
    for (const [j, c] of selection.entries()) dw[k * classes + c] = dy[k * selection.length + j];
  return dw;
}
