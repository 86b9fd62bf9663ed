// What the picture commands share: find weights, open the GPU once and only when needed, close it in the end.
import { Mtcnn } from '../face/detector.js';
import { FaceRecognizer } from '../face/recognizer.js';
import { type Gpu, openGpu } from '../gpu/gpu.js';
import { type LoadedWeights, loadWeights } from '../weights/load.node.js';
import { type GpuFlags, type PrecisionFlags, toGpuOptions, type WeightsFlags } from './options.js';

export interface SessionFlags extends GpuFlags, PrecisionFlags, WeightsFlags {
  net?: string;
}

/** A device and the nets a command uses, opened on first use. */
export class Session {
  #gpu: Promise<Gpu> | undefined;
  #detector: Promise<Mtcnn> | undefined;
  #recognizer: Promise<FaceRecognizer> | undefined;
  #weights = new Map<string, Promise<LoadedWeights>>();

  constructor(private readonly flags: SessionFlags) {}

  gpu(): Promise<Gpu> {
    this.#gpu ??= openGpu(toGpuOptions(this.flags));
    return this.#gpu;
  }

  weights(role: 'detector' | 'recogniser'): Promise<LoadedWeights> {
    let found = this.#weights.get(role);
    if (!found) {
      found = this.#find(role);
      this.#weights.set(role, found);
    }
    return found;
  }

  /** `--weights` may name only one of the two nets; the other is then looked up as usual. */
  async #find(role: 'detector' | 'recogniser'): Promise<LoadedWeights> {
    const net = role === 'recogniser' ? this.flags.net : undefined;
    const given = this.flags.weights;
    if (!given) return loadWeights(role, { net });
    try {
      return await loadWeights(role, { path: given, net });
    } catch (error) {
      const other = await loadWeights(role === 'detector' ? 'recogniser' : 'detector', { path: given }).catch(
        () => undefined,
      );
      if (!other) throw error;
      return loadWeights(role, { net });
    }
  }

  detector(): Promise<Mtcnn> {
    this.#detector ??= this.#openDetector();
    return this.#detector;
  }

  recognizer(): Promise<FaceRecognizer> {
    this.#recognizer ??= this.#openRecognizer();
    return this.#recognizer;
  }

  // Weights first: that there are none is then said at once, before a device is opened for nothing.
  async #openDetector(): Promise<Mtcnn> {
    const weights = await this.weights('detector');
    return Mtcnn.create(await this.gpu(), weights);
  }

  async #openRecognizer(): Promise<FaceRecognizer> {
    const weights = {
      detector: await this.weights('detector'),
      recogniser: await this.weights('recogniser'),
    };
    return FaceRecognizer.create(await this.gpu(), weights, { precision: this.flags.precision });
  }

  /** For cache keys: changes when either net's weights do, or what they are rounded to. */
  async weightsHash(): Promise<string> {
    const [d, r] = await Promise.all([this.weights('detector'), this.weights('recogniser')]);
    return d.hash + r.hash + (this.flags.precision === 'f16' ? 'f16' : '');
  }

  /** One line a net: what it runs on and where that came from. */
  async describeWeights(roles: readonly ('detector' | 'recogniser')[]): Promise<string[]> {
    return Promise.all(
      roles.map(async (role) => {
        const { metadata, files, place } = await this.weights(role);
        const more = files.length > 1 ? ` and ${files.length - 1} more` : '';
        return `${role}: ${metadata.title ?? metadata.net}, from ${files[0]}${more} (${place})`;
      }),
    );
  }

  async close(): Promise<void> {
    if (this.#gpu) (await this.#gpu.catch(() => undefined))?.close();
  }
}

/** Runs a command with a session that is closed whatever happens. */
export async function withSession<T>(
  flags: SessionFlags,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const session = new Session(flags);
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}
