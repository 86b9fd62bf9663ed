import { describe, expect, it } from 'vitest';
import { readProbe } from '../../scripts/lib/adapter.mjs';

const child = { stdout: '', stderr: '', status: 0, signal: null };

describe('reading what the adapter check says', () => {
  it('finds the adapter among what a driver prints', () => {
    const stdout = 'driver chatter\nwfr-adapter:{"info":{"description":"Card","vendor":"v"},"error":null}\n';
    expect(readProbe({ ...child, stdout })).toMatchObject({ found: true, description: 'Card' });
  });

  it('passes on why there is none', () => {
    const stdout = 'wfr-adapter:{"info":null,"error":null}\n';
    const report = readProbe({ ...child, stdout, stderr: 'Vulkan: no ICD' });
    expect(report).toMatchObject({ found: false, detail: 'Vulkan: no ICD' });
    expect(readProbe({ ...child, stdout: 'wfr-adapter:{"info":null,"error":"no module"}\n' }).detail).toBe(
      'no module',
    );
  });

  it('survives a driver that crashes', () => {
    expect(readProbe({ ...child, status: null, signal: 'SIGSEGV' })).toMatchObject({ found: false });
    expect(readProbe({ ...child, status: null, signal: 'SIGSEGV' }).detail).toContain('SIGSEGV');
  });
});
