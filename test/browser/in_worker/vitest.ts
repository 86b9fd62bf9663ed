/** What the kernels' suites take from vitest, made of vitest's own parts: vitest itself starts no dedicated workers. */
import { JestChaiExpect } from '@vitest/expect';
import * as chai from 'chai';

chai.use(JestChaiExpect);
export const { expect } = chai;
export { afterAll, describe, it } from '@vitest/runner';
