/**
 * The margin family on the cosine c of a picture and its own class (θ = arccos c), before the scale:
 *
 *   φ(c) = cos(m1·θ + m2) − m3
 *
 *   softmax (1, 0, 0)   ArcFace (1, m, 0)   CosFace (1, 0, m)   SphereFace (m, 0, 0)   combined: any
 *
 * Where m1·θ + m2 passes π the cosine would rise again and a worse angle would be punished less, so φ goes on falling:
 * for m1 = 1 as c − m2·sin m2 (Deng, Guo, Xue & Zafeiriou 2019, as implemented), else as −2 − cos(m1·θ + m2) (Liu et al.
 * 2017). The gradient is exact, φ′(c) = m1·sin(m1·θ + m2)/sin θ, or straight-through, φ′ = 1 (arcface_torch).
 */
import { f32, type Uniform } from '../../gpu/kernel_call.js';

export interface Margin {
  m1: number;
  m2: number;
  m3: number;
  /** Radius of the hypersphere: logits are scale · cosine. */
  scale: number;
  /** The margin's true gradient instead of the straight-through one. */
  exact: boolean;
  /** Focal loss over the batch's mean cross-entropy M: (1 − e^−M)^γ · M. 0 is plain cross-entropy. */
  gamma: number;
}

export const marginUniforms = (m: Margin): Record<string, Uniform> => ({
  m1: f32(m.m1),
  m2: f32(m.m2),
  m3: f32(m.m3),
  cos_m2: f32(Math.cos(m.m2)),
  sin_m2: f32(Math.sin(m.m2)),
  scale: f32(m.scale),
});

/** `margin(c)`: (φ, φ′). The root is kept from zero, where the exact gradient has a pole. */
export const marginWgsl = ({ m1, exact }: Margin): string => `
fn margin(cosine: f32) -> vec2<f32> {
  let c = clamp(cosine, -1.0, 1.0);
  let sine = sqrt(max(1.0 - c * c, 1e-6));
${m1 === 1 ? ADDITIVE : GENERAL}
  return vec2<f32>(phi - params.m3, ${exact ? 'slope' : '1.0'});
}`;

const ADDITIVE = `  let beyond = c <= -params.cos_m2;
  let phi = select(c * params.cos_m2 - sine * params.sin_m2, c - params.m2 * params.sin_m2, beyond);
  let slope = select(params.cos_m2 + c / sine * params.sin_m2, 1.0, beyond);`;

const GENERAL = `  let angle = params.m1 * acos(c) + params.m2;
  let beyond = angle > 3.14159265358979;
  let phi = select(cos(angle), -2.0 - cos(angle), beyond);
  let slope = params.m1 * sin(angle) / sine * select(1.0, -1.0, beyond);`;
