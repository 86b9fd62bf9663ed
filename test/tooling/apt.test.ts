import { describe, expect, it } from 'vitest';
import {
  debianAddresses,
  deriveBackports,
  parseDeb822,
  parseList,
  parseOsRelease,
} from '../../scripts/lib/apt.mjs';
import { aptPlan, describePlan, driverAdvice, isDebianLike } from '../../scripts/lib/driver.mjs';

const DEB822 = `# a comment
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
`;

const derive = (sources: Parameters<typeof deriveBackports>[0], debian?: Set<string>) => {
  const result = deriveBackports(sources, 'bookworm', debian);
  if (result.already) throw new Error('found backports where there are none');
  return result.source;
};

describe('deriving the backports source', () => {
  it('keeps address and key of a deb822 source and leaves the rest', () => {
    const source = derive(parseDeb822(DEB822));
    expect(source?.extension).toBe('sources');
    expect(source?.text.split('\n').slice(1)).toEqual([
      'Types: deb',
      'URIs: http://mirror.test/debian',
      'Suites: bookworm-backports',
      'Components: main',
      'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg',
      '',
    ]);
  });

  it('keeps a key that is written into the file, line by line', () => {
    const key = '\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----';
    const text = DEB822.replace('/usr/share/keyrings/debian-archive-keyring.gpg', key);
    const source = derive(parseDeb822(text));
    expect(source?.text).toContain(`Signed-By: ${key}\n`);
    expect(derive(parseDeb822(source!.text.replaceAll('-backports', '')))?.text).toContain(
      `Signed-By: ${key}\n`,
    );
  });

  it('keeps the options of a one-line source', () => {
    const source = derive(
      parseList(`deb-src http://mirror.test/debian bookworm main
deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.test/debian bookworm main non-free # mine
# deb http://mirror.test/debian bookworm-backports main
deb http://mirror.test/debian bookworm-updates main`),
    );
    expect(source?.extension).toBe('list');
    expect(source?.text.split('\n')[1]).toBe(
      'deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm-backports main',
    );
  });

  it("takes Debian's archive and not another vendor's that uses Debian's suite names", () => {
    const vendor = parseList('deb http://vendor.test/apt bookworm main');
    const both = [...vendor, ...parseDeb822(DEB822)];
    expect(derive(both)?.text).toContain('URIs: http://mirror.test/debian\n');
    const bare = [...vendor, ...parseList('deb http://mirror.test/debian/ bookworm main')];
    expect(derive(bare, new Set(['http://mirror.test/debian']))?.text).toContain('mirror.test');
    expect(derive(bare, new Set(['http://vendor.test/apt/']))?.text).toContain('vendor.test');
  });

  it('adds nothing where the suite is already configured, unless it is switched off', () => {
    const on = `${DEB822}\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm-backports\nComponents: main\n`;
    expect(deriveBackports(parseDeb822(on), 'bookworm')).toEqual({ already: true });
    expect(deriveBackports(parseDeb822(`${on}Enabled: no\n`), 'bookworm')).toMatchObject({ already: false });
  });

  it('derives nothing from sources of another release, or without the main component', () => {
    expect(derive(parseList('deb http://mirror.test/debian trixie main'))).toBeNull();
    expect(derive(parseList('deb http://mirror.test/debian bookworm contrib'))).toBeNull();
    expect(derive([])).toBeNull();
  });

  it("reads apt's own index for the addresses of Debian's archive", () => {
    const index =
      'http://m.test/debian/|Debian|bookworm\nhttp://v.test/|Vendor|bookworm\nhttp://b.test/|Debian|trixie\n';
    expect([...debianAddresses(index, 'bookworm')]).toEqual(['http://m.test/debian/']);
  });
});

describe('the plan for apt', () => {
  const bookworm = parseOsRelease('ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n');

  it('takes the driver from backports on Debian 12', () => {
    const plan = aptPlan(bookworm, parseDeb822(DEB822), new Set());
    expect(plan.suite).toBe('bookworm-backports');
    expect(describePlan(plan)).toMatch(
      /write \/etc\/apt\/sources\.list\.d\/wfr-backports\.sources[\s\S]*apt-get update[\s\S]*-t bookworm-backports mesa-vulkan-drivers libvulkan1/,
    );
  });

  it('takes it from the release itself elsewhere', () => {
    for (const text of ['ID=debian\nVERSION_CODENAME=trixie', 'ID=ubuntu\nVERSION_CODENAME=noble']) {
      const plan = aptPlan(parseOsRelease(text), [], new Set());
      expect(plan.steps).toHaveLength(2);
      expect(describePlan(plan)).not.toMatch(/backports|write/);
    }
  });

  it('says so when nothing can be derived', () => {
    const plan = aptPlan(bookworm, [], new Set());
    expect(plan.steps).toEqual([]);
    expect(plan.problem).toMatch(/bookworm main/);
  });

  it('knows the children of Debian and Ubuntu', () => {
    expect(isDebianLike(bookworm)).toBe(true);
    expect(isDebianLike(parseOsRelease('ID=linuxmint\nID_LIKE="ubuntu debian"'))).toBe(true);
    expect(isDebianLike(parseOsRelease('ID=fedora'))).toBe(false);
  });
});

describe('advice elsewhere', () => {
  it('names what to install on each platform', () => {
    expect(driverAdvice('linux', { ID: 'fedora' })).toContain(
      'dnf install mesa-vulkan-drivers vulkan-loader',
    );
    expect(driverAdvice('linux', { ID: 'manjaro', ID_LIKE: 'arch' })).toContain('pacman -S');
    expect(driverAdvice('linux', { ID: 'alpine' })).toContain('musl');
    expect(driverAdvice('linux', {})).toContain('libvulkan.so.1');
    expect(driverAdvice('win32')).toContain('Direct3D 12');
    expect(driverAdvice('darwin')).toContain('Metal');
    expect(driverAdvice('sunos')).toContain('sunos');
  });
});
