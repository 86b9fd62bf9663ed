import { WfrError } from '../../gpu/errors.js';

/**
 * A teacher's embeddings as targets: the mean over all pictures subtracted, then normalised. Embeddings of many nets
 * lie in a narrow cone about their mean; without this a student learns little more than that mean.
 *
 * @param sets of each set the teacher's rows (data [N, dimension]) that its pictures have; sets without a teacher have
 *   no data and get rows of zeros, which the loss leaves out.
 * @param name what a message calls the teacher
 * @returns one row a picture, set after set.
 * @throws WfrError when no row differs from their mean.
 */
export function prepareTeacher(
  sets: readonly { rows: readonly number[]; data?: Float32Array }[],
  dimension: number,
  name = 'The teacher',
): Float32Array {
  const count = sets.reduce((sum, { rows }) => sum + rows.length, 0);
  const out = new Float32Array(count * dimension);
  const mean = new Float64Array(dimension);
  let taught = 0;
  let first = 0;
  for (const { rows, data } of sets) {
    if (data) {
      for (const [i, row] of rows.entries()) {
        const values = data.subarray(row * dimension, (row + 1) * dimension);
        out.set(values, (first + i) * dimension);
        if (!values.every(Number.isFinite)) continue;
        taught++;
        for (let k = 0; k < dimension; k++) mean[k] += values[k];
      }
    }
    first += rows.length;
  }
  first = 0;
  let teaching = 0;
  for (const { rows, data } of sets) {
    for (let i = first; data && i < first + rows.length; i++) {
      const row = out.subarray(i * dimension, (i + 1) * dimension);
      for (let k = 0; k < dimension; k++) row[k] -= mean[k] / taught;
      const length = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));
      // A row that is not finite, or is the mean itself, teaches nothing.
      if (length > 1e-6 && Number.isFinite(length)) {
        teaching++;
        for (let k = 0; k < dimension; k++) row[k] /= length;
      } else row.fill(0);
    }
    first += rows.length;
  }
  if (teaching === 0)
    throw new WfrError(
      `${name} teaches nothing: of ${count} pictures, ${taught} have an embedding, and ${taught > 1 ? 'all of these are the same' : 'none is left once the mean of all is subtracted'}. Make its file anew.`,
    );
  return out;
}
