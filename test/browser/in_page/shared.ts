import { type Gpu, openGpu } from '../../../src/gpu/gpu.js';

let opened: Promise<Gpu> | undefined;

/** One device a page or worker. */
export const sharedGpu = (): Promise<Gpu> => (opened ??= openGpu());
