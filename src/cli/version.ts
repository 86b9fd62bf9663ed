import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** The version of this package (`src/cli` and `dist/cli` lie equally deep). */
export function wfrVersion(): string {
  return versionIn(new URL('../../package.json', import.meta.url));
}

/** The version of a dependency, or null when it is not installed. */
export function packageVersion(name: string): string | null {
  try {
    return versionIn(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch {
    return null;
  }
}

function versionIn(file: string | URL): string {
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
