import { Random } from '../../src/train/random.js';

/**
 * A drawn face, RGB side × side × 3: a person is colours and proportions, a picture of them moves, turns brightness and
 * adds noise.
 */
export function drawPerson(person: number, picture: number, side: number): Uint8Array {
  const p = Random.of(11, 'person', person);
  const colour = () => [0, 1, 2].map(() => p.between(40, 230));
  const [skin, hair, eyes, mouth, ground] = [colour(), colour(), colour(), colour(), colour()];
  const width = p.between(0.26, 0.42);
  const gap = p.between(0.1, 0.2);
  const eye = p.between(0.03, 0.08);
  const fringe = p.between(0.18, 0.36);
  const grin = p.between(0.06, 0.2);
  const r = Random.of(11, 'picture', person, picture);
  const [dx, dy] = [r.between(-0.04, 0.04), r.between(-0.04, 0.04)];
  const light = r.between(0.85, 1.15);
  const out = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const u = (x + 0.5) / side - 0.5 + dx;
      const v = (y + 0.5) / side - 0.5 + dy;
      let c = ground;
      if ((u / width) ** 2 + (v / 0.46) ** 2 < 1) c = v < fringe - 0.5 + 0.12 ? hair : skin;
      if (Math.hypot(Math.abs(u) - gap, v + 0.04) < eye) c = eyes;
      if (Math.abs(u) < grin && Math.abs(v - 0.28) < 0.03) c = mouth;
      for (let k = 0; k < 3; k++)
        out[(y * side + x) * 3 + k] = Math.max(0, Math.min(255, c[k] * light + r.between(-12, 12)));
    }
  }
  return out;
}

export const people = (count: number, pictures: number, side: number) =>
  Array.from({ length: count * pictures }, (_, i) => {
    const person = Math.floor(i / pictures);
    return {
      name: `p${String(person).padStart(2, '0')}/${i % pictures}.png`,
      rgb: drawPerson(person, i % pictures, side),
      identity: `p${String(person).padStart(2, '0')}`,
    };
  });
