/**
 * A constant-velocity Kalman filter for one coordinate, with time steps of any length (Kalman 1960; the process
 * noise is white acceleration, integrated exactly over the step).
 */
export class Kalman1D {
  position: number;
  velocity = 0;
  // Covariance [[pp, pv], [pv, vv]].
  #pp: number;
  #pv = 0;
  #vv: number;

  /**
   * @param position first measurement
   * @param noise standard deviation of a measurement, in the coordinate's unit
   * @param speed standard deviation of the unknown first velocity, per second
   */
  constructor(position: number, noise: number, speed: number) {
    this.position = position;
    this.#pp = noise * noise;
    this.#vv = speed * speed;
  }

  /** Where the coordinate will be after `dt` seconds, without moving the filter. */
  ahead(dt: number): number {
    return this.position + this.velocity * dt;
  }

  /** @param acceleration standard deviation, per second squared */
  predict(dt: number, acceleration: number): void {
    const q = acceleration * acceleration;
    this.position += this.velocity * dt;
    this.#pp += 2 * dt * this.#pv + dt * dt * this.#vv + (q * dt ** 4) / 4;
    this.#pv += dt * this.#vv + (q * dt ** 3) / 2;
    this.#vv += q * dt * dt;
  }

  update(measured: number, noise: number): void {
    const innovation = measured - this.position;
    const s = this.#pp + noise * noise;
    const [kp, kv] = [this.#pp / s, this.#pv / s];
    this.position += kp * innovation;
    this.velocity += kv * innovation;
    this.#vv -= kv * this.#pv;
    this.#pv *= 1 - kp;
    this.#pp *= 1 - kp;
  }
}
