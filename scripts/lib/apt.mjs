// Debian 12's own Mesa is too old for Dawn, its backports suite has a new one. These pure functions derive a
// source for that suite from the sources the machine already has, so that mirrors, proxies and keys stay theirs.

/**
 * @typedef {{ format: 'deb822', fields: Map<string, string>, suites: string[], components: string[],
 *   uris: string[], enabled: boolean, binary: boolean }} Deb822Source
 * @typedef {{ format: 'list', options: string, suites: string[], components: string[], uris: string[],
 *   enabled: boolean, binary: boolean }} ListSource
 * @typedef {Deb822Source | ListSource} AptSource
 * @typedef {{ extension: 'sources' | 'list', text: string }} DerivedSource
 */

/** @param {string | undefined} value */
const words = (value) => (value ?? '').split(/\s+/).filter(Boolean);

/**
 * Reads a deb822 file (`*.sources`): stanzas of `Field: value`, continued by indented lines.
 * @param {string} text
 * @returns {Deb822Source[]}
 */
export function parseDeb822(text) {
  /** @type {Deb822Source[]} */
  const sources = [];
  /** @type {Map<string, string>} */
  let fields = new Map();
  let last = '';
  const finish = () => {
    if (fields.size > 0) {
      /** @param {string} name */
      const get = (name) => [...fields].find(([key]) => key.toLowerCase() === name)?.[1];
      sources.push({
        format: 'deb822',
        fields,
        suites: words(get('suites')),
        components: words(get('components')),
        uris: words(get('uris')),
        enabled: !/^(no|false|without|off|disable|0)$/i.test((get('enabled') ?? 'yes').trim()),
        binary: words(get('types')).includes('deb'),
      });
    }
    fields = new Map();
    last = '';
  };
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    if (line.trim() === '') {
      finish();
    } else if (/^[ \t]/.test(line)) {
      // A continuation: an inline key under Signed-By keeps its line breaks.
      if (last) fields.set(last, `${fields.get(last)}\n${line}`);
    } else {
      const colon = line.indexOf(':');
      if (colon > 0) {
        last = line.slice(0, colon).trim();
        fields.set(last, line.slice(colon + 1).trim());
      }
    }
  }
  finish();
  return sources;
}

/**
 * Reads a one-line file (`*.list`): `deb [options] uri suite components…`.
 * @param {string} text
 * @returns {ListSource[]}
 */
export function parseList(text) {
  /** @type {ListSource[]} */
  const sources = [];
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.replace(/#.*/, '').trim();
    const match = /^(deb|deb-src)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)$/.exec(line);
    if (!match) continue;
    const [, type, options, uri, suite, components] = match;
    sources.push({
      format: 'list',
      options: (options ?? '').trim(),
      suites: [suite],
      components: words(components),
      uris: [uri],
      enabled: true,
      binary: type === 'deb',
    });
  }
  return sources;
}

/** @param {string} uri */
const plain = (uri) => uri.replace(/\/+$/, '');

/**
 * The source to add for the backports suite of `codename`.
 * @param {AptSource[]} sources everything the machine has
 * @param {string} codename e.g. `bookworm`
 * @param {Set<string>} [debian] addresses known (from apt's own index) to be Debian's archive; other vendors
 *   use Debian's suite names too, and without this knowledge an address that also carries `-updates` wins
 * @returns {{ already: true } | { already: false, source: DerivedSource | null }}
 *   `source` is null when nothing here can be built upon.
 */
export function deriveBackports(sources, codename, debian = new Set()) {
  const suite = `${codename}-backports`;
  const usable = sources.filter((source) => source.enabled && source.binary);
  if (usable.some((source) => source.suites.includes(suite))) return { already: true };

  const known = new Set([...debian].map(plain));
  const updated = new Set(
    usable.filter((s) => s.suites.includes(`${codename}-updates`)).flatMap((s) => s.uris.map(plain)),
  );
  /** @param {AptSource} source */
  const score = (source) => {
    const uris = source.uris.map(plain);
    let points = 0;
    if (uris.some((uri) => known.has(uri))) points += 4;
    if (uris.some((uri) => updated.has(uri))) points += 2;
    const keyring = source.format === 'list' ? source.options : [...source.fields.values()].join(' ');
    if (keyring.includes('debian-archive-keyring')) points += 1;
    return points;
  };
  const best = usable
    .filter((s) => s.suites.includes(codename) && s.components.includes('main'))
    .map((source) => ({ source, points: score(source) }))
    .sort((a, b) => b.points - a.points)[0]?.source;
  if (!best) return { already: false, source: null };

  const why =
    '# Added by the set-up of wfr: Mesa new enough for WebGPU. Nothing is taken from here unasked.\n';
  if (best.format === 'list') {
    const options = best.options ? `[${best.options}] ` : '';
    return {
      already: false,
      source: { extension: 'list', text: `${why}deb ${options}${best.uris[0]} ${suite} main\n` },
    };
  }
  const drop = new Set(['types', 'uris', 'suites', 'components', 'enabled', 'description', 'x-repolib-name']);
  const lines = ['Types: deb', `URIs: ${best.uris.join(' ')}`, `Suites: ${suite}`, 'Components: main'];
  for (const [name, value] of best.fields) {
    if (!drop.has(name.toLowerCase())) lines.push(`${name}: ${value}`);
  }
  return { already: false, source: { extension: 'sources', text: `${why}${lines.join('\n')}\n` } };
}

/**
 * Reads `apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(CODENAME)'`.
 * @param {string} text @param {string} codename
 * @returns {Set<string>} the addresses of Debian's own archive
 */
export function debianAddresses(text, codename) {
  const found = new Set();
  for (const line of text.split('\n')) {
    const [uri, origin, name] = line.trim().split('|');
    if (uri && origin === 'Debian' && name === codename) found.add(uri);
  }
  return found;
}

/**
 * Reads /etc/os-release.
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function parseOsRelease(text) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Z_]+)=(.*)$/.exec(line.trim());
    if (match) fields[match[1]] = match[2].replace(/^(["'])(.*)\1$/, '$2');
  }
  return fields;
}
