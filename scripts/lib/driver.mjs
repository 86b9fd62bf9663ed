// What to install where no WebGPU adapter was found: the plan as data (tested without touching the machine),
// and its execution.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { debianAddresses, deriveBackports, parseDeb822, parseList, parseOsRelease } from './apt.mjs';

/** Debian releases whose own Mesa Dawn refuses (`shaderUniform*ArrayDynamicIndexing required`). */
const OLD_MESA = new Set(['bookworm']);
const PACKAGES = ['mesa-vulkan-drivers', 'libvulkan1'];

/**
 * @typedef {{ run: string[], mayFail?: boolean } | { write: string, text: string }} Step a command, or a file to write
 * @typedef {{ steps: Step[], suite: string | null, problem: string | null }} Plan
 */

/**
 * Every apt source of the machine.
 * @param {string} [etc]
 * @returns {import('./apt.mjs').AptSource[]}
 */
export function readAptSources(etc = '/etc/apt') {
  const files = [join(etc, 'sources.list')];
  const folder = join(etc, 'sources.list.d');
  if (existsSync(folder)) for (const name of readdirSync(folder).sort()) files.push(join(folder, name));
  /** @type {import('./apt.mjs').AptSource[]} */
  const sources = [];
  for (const file of files.filter((path) => existsSync(path))) {
    const parse = file.endsWith('.list') ? parseList : file.endsWith('.sources') ? parseDeb822 : null;
    if (parse) sources.push(...parse(readFileSync(file, 'utf8')));
  }
  return sources;
}

/**
 * Whether this is Debian, Ubuntu or a child of theirs that uses apt and their package names.
 * @param {Record<string, string>} release /etc/os-release
 */
export function isDebianLike(release) {
  return `${release.ID ?? ''} ${release.ID_LIKE ?? ''}`
    .split(/\s+/)
    .some((id) => id === 'debian' || id === 'ubuntu');
}

/**
 * The steps that install Mesa's Vulkan driver with apt.
 * @param {Record<string, string>} release
 * @param {import('./apt.mjs').AptSource[]} sources
 * @param {Set<string>} debian see deriveBackports
 * @param {string} [etc]
 * @returns {Plan}
 */
export function aptPlan(release, sources, debian, etc = '/etc/apt') {
  const codename = release.VERSION_CODENAME ?? '';
  // It also fails when some other source of the machine is broken, which is no reason to give up.
  const update = { run: ['apt-get', 'update'], mayFail: true };
  const install = ['apt-get', 'install', '-y', '--no-install-recommends'];
  if (!OLD_MESA.has(codename)) {
    return { steps: [update, { run: [...install, ...PACKAGES] }], suite: null, problem: null };
  }
  const suite = `${codename}-backports`;
  const derived = deriveBackports(sources, codename, debian);
  /** @type {Step[]} */
  const steps = [];
  if (!derived.already) {
    if (!derived.source) {
      return {
        steps: [],
        suite,
        problem: `none of the apt sources in ${etc} offers "${codename} main", so none for ${suite} can be derived from them`,
      };
    }
    const file = join(etc, 'sources.list.d', `wfr-backports.${derived.source.extension}`);
    steps.push({ write: file, text: derived.source.text });
  }
  steps.push(update, { run: [...install, '-t', suite, ...PACKAGES] });
  return { steps, suite, problem: null };
}

/**
 * The steps that install the release's own packages: the browser that the tests drive, ffmpeg.
 * @param {string[]} names
 * @returns {Plan}
 */
export function packagesPlan(names) {
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...names];
  return {
    steps: [{ run: ['apt-get', 'update'], mayFail: true }, { run: install }],
    suite: null,
    problem: null,
  };
}

/**
 * The plan in words, for --dry-run and for people who do it by hand.
 * @param {Plan} plan
 */
export function describePlan(plan) {
  return plan.steps
    .map((step) =>
      'run' in step
        ? `  ${step.run.join(' ')}`
        : `  write ${step.write}:\n${step.text.trimEnd().replace(/^/gm, '    | ')}`,
    )
    .join('\n');
}

/**
 * @param {string[]} command @param {string[]} prefix `sudo` where needed @param {string} [input]
 */
function execute(command, prefix, input) {
  const [program, ...rest] = [...prefix, ...command];
  // Not through `env`: sudo drops the environment, so DEBIAN_FRONTEND is set on its command line.
  const result = spawnSync(program, rest, {
    stdio: [input === undefined ? 'ignore' : 'pipe', 'inherit', 'inherit'],
    input,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (result.error) return `${program} could not be started: ${result.error.message}`;
  return result.status === 0
    ? null
    : `\`${[program, ...rest].join(' ')}\` failed with status ${result.status}`;
}

/**
 * Asks apt which addresses are Debian's own archive. Empty before the first `apt-get update` of a bare machine.
 * @param {string} codename
 */
export function knownDebianAddresses(codename) {
  const format = '$(REPO_URI)|$(ORIGIN)|$(CODENAME)';
  const result = spawnSync('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'], {
    encoding: 'utf8',
  });
  return debianAddresses(result.stdout ?? '', codename);
}

/**
 * Carries the plan out; what it wrote is removed again when a later step fails.
 * @param {Plan} plan @param {string[]} prefix `[]` as root, else `['sudo', …]`
 * @returns {string | null} what went wrong
 */
export function executePlan(plan, prefix) {
  /** @type {string[]} */
  const written = [];
  for (const step of plan.steps) {
    /** @type {string | null} */
    let problem = null;
    if ('run' in step) {
      const environment = prefix.length > 0 ? ['env', 'DEBIAN_FRONTEND=noninteractive'] : [];
      problem = execute([...environment, ...step.run], prefix);
      if (step.mayFail) problem = null;
    } else if (prefix.length > 0) {
      problem = execute(['sh', '-c', 'cat > "$1"', 'sh', step.write], prefix, step.text);
      written.push(step.write);
    } else {
      writeFileSync(step.write, step.text);
      written.push(step.write);
    }
    if (problem) {
      for (const file of written) {
        if (prefix.length > 0) execute(['rm', '-f', file], prefix);
        else rmSync(file, { force: true });
      }
      return problem;
    }
  }
  return null;
}

/** /etc/os-release of this machine; empty where there is none. */
export function osRelease() {
  for (const file of ['/etc/os-release', '/usr/lib/os-release']) {
    if (existsSync(file)) return parseOsRelease(readFileSync(file, 'utf8'));
  }
  return {};
}

/**
 * What a person has to do on a platform where nothing is installed for them.
 * @param {string} platform process.platform
 * @param {Record<string, string>} release /etc/os-release
 * @returns {string}
 */
export function driverAdvice(platform, release = {}) {
  if (platform === 'win32') {
    return [
      'WebGPU runs on Direct3D 12 here. Install the newest driver of your graphics card from its maker (NVIDIA,',
      'AMD, Intel) or from Windows Update > Optional updates. Windows 10 or newer is needed.',
    ].join('\n');
  }
  if (platform === 'darwin') {
    return [
      'WebGPU runs on Metal here, which every Mac of the last ten years has; there is nothing to install. Update',
      'macOS, and run from a session on the Mac itself: some virtual machines offer no graphics device.',
    ].join('\n');
  }
  if (platform !== 'linux')
    return `There is no WebGPU for ${platform}: use Linux, Windows, macOS or a browser.`;

  const ids = `${release.ID ?? ''} ${release.ID_LIKE ?? ''}`.split(/\s+/);
  /** @param {string[]} names */
  const is = (...names) => names.some((name) => ids.includes(name));
  const hardware =
    "With an NVIDIA card, install NVIDIA's own driver; AMD and Intel cards and machines without one use Mesa's.";
  let command =
    "  install Mesa's Vulkan drivers and the Vulkan loader (libvulkan.so.1) with your package manager";
  if (is('alpine')) {
    return [
      'WebGPU for Node is built for glibc and does not load on Alpine (musl). Use a Debian, Ubuntu or Fedora',
      'image, or a container of one of them.',
    ].join('\n');
  }
  if (is('debian', 'ubuntu')) {
    const suite = OLD_MESA.has(release.VERSION_CODENAME ?? '') ? `${release.VERSION_CODENAME}-backports` : '';
    command = `  sudo apt-get install ${suite ? `-t ${suite} ` : ''}${PACKAGES.join(' ')}`;
    if (suite) command += `\n(this release's own Mesa is too old: enable the suite ${suite} first)`;
  } else if (is('fedora', 'rhel', 'centos')) command = '  sudo dnf install mesa-vulkan-drivers vulkan-loader';
  else if (is('arch'))
    command = '  sudo pacman -S vulkan-icd-loader vulkan-swrast   (cards: vulkan-radeon, vulkan-intel)';
  else if (is('suse', 'opensuse'))
    command = '  sudo zypper install libvulkan1 libvulkan_lvp   (cards: libvulkan_radeon, libvulkan_intel)';
  else if (is('nixos')) command = '  set hardware.graphics.enable = true in configuration.nix';
  return [
    `WebGPU runs on Vulkan here. Install a Vulkan driver (Mesa 24 or newer) and the loader:`,
    command,
    hardware,
  ].join('\n');
}

/** What a person has to do on this machine, as exactly as can be told. */
export function adviceHere() {
  const release = osRelease();
  if (process.platform === 'linux' && isDebianLike(release)) {
    const plan = aptPlan(release, readAptSources(), knownDebianAddresses(release.VERSION_CODENAME ?? ''));
    if (!plan.problem) {
      return `WebGPU needs a Vulkan driver. As root, without a graphics card or with one of AMD or Intel:\n${describePlan(plan)}`;
    }
  }
  return driverAdvice(process.platform, release);
}
