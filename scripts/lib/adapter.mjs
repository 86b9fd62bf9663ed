// Finds out in a child process whether WebGPU has an adapter. A child, because a broken Vulkan driver can take
// the process down in native code, and because a driver installed a moment ago is only seen by a new process.
import { spawnSync } from 'node:child_process';

const MARK = 'wfr-adapter:';

const PROBE = `
let info = null, error = null;
try {
  const { create } = await import('webgpu');
  const gpu = create([]);
  const adapter = await gpu.requestAdapter();
  if (adapter) info = { description: adapter.info.description, vendor: adapter.info.vendor };
  globalThis.keep = [gpu, adapter];
} catch (e) { error = String(e?.message ?? e); }
process.stdout.write(${JSON.stringify(MARK)} + JSON.stringify({ info, error }) + '\\n', () => process.exit(0));
`;

/**
 * @typedef {{ found: boolean, description: string, detail: string }} AdapterReport
 *   description: the adapter's name when found; detail: what the child said when not.
 */

/**
 * Reads the child's outcome.
 * @param {{ stdout: string, stderr: string, status: number | null, signal: string | null, error?: Error }} child
 * @returns {AdapterReport}
 */
export function readProbe(child) {
  const line = child.stdout.split('\n').find((text) => text.startsWith(MARK));
  const noise = child.stderr.trim();
  if (!line) {
    const how = child.error?.message ?? (child.signal ? `signal ${child.signal}` : `status ${child.status}`);
    return {
      found: false,
      description: '',
      detail: [`the check ended with ${how}`, noise].filter(Boolean).join('\n'),
    };
  }
  const { info, error } = JSON.parse(line.slice(MARK.length));
  if (info)
    return { found: true, description: info.description || info.vendor || 'unnamed adapter', detail: '' };
  return { found: false, description: '', detail: [error, noise].filter(Boolean).join('\n') };
}

/**
 * @param {string} root the checkout, whose node_modules holds `webgpu`
 * @returns {AdapterReport}
 */
export function findAdapter(root) {
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', PROBE], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  });
  return readProbe({ ...child, stdout: child.stdout ?? '', stderr: child.stderr ?? '' });
}
