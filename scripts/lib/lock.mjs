// Does node_modules hold what package-lock.json asks for? Compared with npm's own record of what it put
// there (node_modules/.package-lock.json), so that a no-op set-up costs milliseconds instead of an `npm ci`.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @typedef {{ version?: string, integrity?: string, resolved?: string, link?: boolean,
 *   optional?: boolean, os?: string[], cpu?: string[] }} LockEntry
 * @typedef {{ packages?: Record<string, LockEntry> }} Lock
 */

/**
 * npm's os/cpu lists: names, or `!name` for all but that one.
 * @param {string[] | undefined} list @param {string} value
 */
function allows(list, value) {
  if (!list || list.length === 0) return true;
  if (list.includes(`!${value}`)) return false;
  const positive = list.filter((name) => !name.startsWith('!'));
  return positive.length === 0 || positive.includes(value) || positive.includes('any');
}

/**
 * Why the installed tree differs from the wanted one; null when it does not. Packages that are installed but
 * not in the lock are no reason: they are somebody's `npm link` or `npm i --no-save` and harm nothing.
 * @param {Lock} wanted package-lock.json
 * @param {Lock} installed node_modules/.package-lock.json
 * @param {{ os?: string, cpu?: string }} [platform]
 * @returns {string | null}
 */
export function lockDifference(wanted, installed, platform = {}) {
  const os = platform.os ?? process.platform;
  const cpu = platform.cpu ?? process.arch;
  const have = installed.packages;
  if (!wanted.packages) return 'package-lock.json lists no packages (lock file version 2 or 3 is needed)';
  if (!have) return "npm's record of node_modules is of an old version";
  for (const [path, want] of Object.entries(wanted.packages)) {
    if (path === '' || want.link) continue;
    const got = have[path];
    if (!got) {
      // npm leaves out optional packages of other platforms, and those of this one that would not install.
      if (want.optional) continue;
      return `${path} is not installed`;
    }
    if (got.version !== want.version) return `${path} is ${got.version}, the lock wants ${want.version}`;
    if (want.integrity && got.integrity && want.integrity !== got.integrity) {
      return `${path} has another checksum than the lock`;
    }
    if (!allows(got.os, os) || !allows(got.cpu, cpu)) return `${path} was installed for another platform`;
  }
  return null;
}

/**
 * Why `npm ci` is needed in this checkout; null when it is not.
 * @param {string} root
 * @returns {string | null}
 */
export function whyInstall(root) {
  const wantedPath = join(root, 'package-lock.json');
  const installedPath = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(join(root, 'node_modules'))) return 'nothing is installed yet';
  if (!existsSync(installedPath)) return 'an earlier installation did not finish';
  /** @type {Lock} */
  const wanted = JSON.parse(readFileSync(wantedPath, 'utf8'));
  /** @type {Lock} */
  let installed;
  try {
    installed = JSON.parse(readFileSync(installedPath, 'utf8'));
  } catch {
    return "npm's record of node_modules is damaged";
  }
  const difference = lockDifference(wanted, installed);
  if (difference) return difference;
  // The record may outlive the files (a cleaned or half-copied node_modules).
  for (const path of Object.keys(installed.packages ?? {})) {
    if (wanted.packages?.[path] && !existsSync(join(root, path, 'package.json'))) return `${path} is missing`;
  }
  return null;
}
