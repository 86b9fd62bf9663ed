// Stands in for the demo until it is written: shows that the machine is ready.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const result = spawnSync(process.execPath, [join(root, 'bin', 'wfr.js'), 'doctor'], { stdio: 'inherit' });
process.exit(result.status ?? 1);
