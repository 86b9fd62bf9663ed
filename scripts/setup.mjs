// Makes a fresh clone ready to run: development packages from the lock file, and a driver that gives WebGPU an
// adapter. With CI=true also a Chromium and ffmpeg, so that the tests in the browser and of videos run there; elsewhere
// they run where there is one. Needs nothing but Node itself; does nothing, in well under a second, where nothing is to be done.
//
//   node scripts/setup.mjs [--yes] [--ffmpeg] [--dry-run]
//     --yes       install the driver without asking (as root, and with CI=true, nothing is asked anyway)
//     --ffmpeg    also install ffmpeg where it is missing: videos and their tests need it, nothing else does
//     --dry-run   print what would be installed, change nothing
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { findAdapter } from './lib/adapter.mjs';
import { findChromium } from './lib/chromium.mjs';
import {
  aptPlan,
  describePlan,
  driverAdvice,
  executePlan,
  isDebianLike,
  knownDebianAddresses,
  osRelease,
  packagesPlan,
  readAptSources,
} from './lib/driver.mjs';
import { whyInstall } from './lib/lock.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const flags = new Set(process.argv.slice(2));
const dryRun = flags.has('--dry-run');
for (const flag of flags) {
  if (!['--dry-run', '--yes', '--ffmpeg'].includes(flag))
    fail(`Unknown option ${flag}: there are --yes, --ffmpeg and --dry-run.`);
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}

/** @param {string} message */
const say = (message) => console.log(`set-up: ${message}`);

function installPackages() {
  const reason = whyInstall(root);
  if (!reason) return;
  say(`npm ci (${reason})`);
  if (dryRun) return;
  // The npm that runs this script, when there is one: it is there, and it is the version the person chose.
  const self = process.env.npm_execpath;
  const viaNode = self !== undefined && /\.[cm]?js$/.test(self);
  const [program, args] = viaNode ? [process.execPath, [self, 'ci']] : ['npm', ['ci']];
  const result = spawnSync(program, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: !viaNode && process.platform === 'win32',
    env: { ...process.env, WFR_NO_PREPARE: '1' },
  });
  if (result.error) fail(`npm could not be started: ${result.error.message}. Install npm and try again.`);
  if (result.status !== 0) {
    fail(
      '`npm ci` failed; its message is above. If it says that package.json and package-lock.json are not in sync,\n' +
        'run `npm install` once; if it is the network, try again when there is one.',
    );
  }
}

async function agreed() {
  if (process.getuid?.() === 0 || process.env.CI === 'true' || flags.has('--yes')) return true;
  if (!process.stdin.isTTY || !process.stdout.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Install these now (sudo may ask for your password)? [y/N] ');
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

/** `[]` as root; sudo otherwise, never asking for a password where nobody sits. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return process.stdin.isTTY ? ['sudo'] : ['sudo', '-n'];
}

async function installDriver() {
  const before = dryRun && whyInstall(root) ? null : findAdapter(root);
  if (before?.found) return;
  if (before) console.error(['No WebGPU adapter was found.', before.detail].filter(Boolean).join('\n'));
  const release = osRelease();
  const advice = driverAdvice(process.platform, release);
  if (process.platform !== 'linux' || !isDebianLike(release)) fail(`\n${advice}\nThen run this again.`);

  const codename = release.VERSION_CODENAME ?? '';
  const plan = aptPlan(release, readAptSources(), knownDebianAddresses(codename));
  if (plan.problem) fail(`\n${plan.problem}.\n${advice}`);
  say(`WebGPU needs Mesa's Vulkan driver and the Vulkan loader:\n${describePlan(plan)}`);
  if (dryRun) return;
  if (!(await agreed())) {
    fail('Nothing was installed. Do the steps above as root, or run `node scripts/setup.mjs --yes`.');
  }
  const problem = executePlan(plan, rootPrefix());
  if (problem) fail(`\nThe driver could not be installed: ${problem}.\n${advice}`);
  const after = findAdapter(root);
  if (!after.found) {
    fail(`\nThe driver is installed, but WebGPU still finds no adapter.\n${after.detail}\n${advice}`);
  }
  say(`WebGPU runs on ${after.description}`);
}

function installBrowser() {
  if (process.env.CI !== 'true' || process.env.WFR_CHROMIUM || findChromium()) return;
  if (process.platform !== 'linux' || !isDebianLike(osRelease()))
    fail('There is no Chromium for the tests in the browser: install one, or set WFR_CHROMIUM=none.');
  const plan = packagesPlan(['chromium', 'fonts-dejavu-core']);
  say(`the tests in the browser need Chromium:\n${describePlan(plan)}`);
  if (dryRun) return;
  const problem = executePlan(plan, rootPrefix());
  if (problem) fail(`\nChromium could not be installed: ${problem}.`);
}

/** Whatever comes of it, the rest works without: then videos say what is missing, and their tests are skipped. */
async function installFfmpeg() {
  const works = !spawnSync('ffmpeg', ['-version'], { stdio: 'ignore' }).error;
  if (works && !spawnSync('ffprobe', ['-version'], { stdio: 'ignore' }).error) return;
  if (process.platform !== 'linux' || !isDebianLike(osRelease())) {
    say('ffmpeg was not found; install it with your package manager for videos and their tests');
    return;
  }
  const plan = packagesPlan(['ffmpeg']);
  say(`videos need ffmpeg:\n${describePlan(plan)}`);
  if (dryRun || !(await agreed())) return;
  const problem = executePlan(plan, rootPrefix());
  if (problem) console.error(`ffmpeg could not be installed: ${problem}.`);
}

installPackages();
await installDriver();
installBrowser();
if (flags.has('--ffmpeg') || process.env.CI === 'true') await installFfmpeg();
