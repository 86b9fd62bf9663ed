// The floors of the house: imports only go down, in no circles, and what a browser loads imports nothing of
// Node. test/tooling/imports.test.ts shows that every rule here really fails on a wrong import.

// Each floor and what it may import besides itself.
const below = {
  gpu: [],
  kernels: ['gpu'],
  graph: ['kernels', 'gpu'],
  weights: ['graph', 'kernels', 'gpu'],
  nets: ['weights', 'graph', 'kernels', 'gpu'],
  media: ['nets', 'weights', 'graph', 'kernels', 'gpu'],
  face: ['media', 'nets', 'weights', 'graph', 'kernels', 'gpu'],
  train: ['face', 'media', 'nets', 'weights', 'graph', 'kernels', 'gpu'],
  cli: ['train', 'face', 'media', 'nets', 'weights', 'graph', 'kernels', 'gpu'],
};

// Packages that need Node: its file system, its streams or native code.
const nodePackages = [
  '@fontsource-variable/noto-sans-sc',
  '@napi-rs/canvas',
  'cli-progress',
  'cli-table3',
  'commander',
  'dejavu-fonts-ttf',
  'picocolors',
  'pngjs',
  'tinyglobby',
  'webgpu',
];

// What may use Node: `*.node.ts`, and the command line with everything in it.
const nodeSide = ['\\.node\\.ts$', '^src/cli/'];

module.exports = {
  forbidden: [
    {
      name: 'no-circles',
      comment: 'Two modules that import each other are one module: take out what both need.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    ...Object.entries(below).map(([floor, allowed]) => ({
      name: `floor-${floor}`,
      comment: `src/${floor} may import only from itself${allowed.length > 0 ? ` and ${allowed.join(', ')}` : ''}.`,
      severity: 'error',
      from: { path: `^src/${floor}/` },
      to: { path: '^src/', pathNot: `^src/(${[floor, ...allowed].join('|')})/` },
    })),
    {
      name: 'entries-without-cli',
      comment: 'The library (src/*.ts) does not load the command line.',
      severity: 'error',
      from: { path: '^src/[^/]+\\.ts$' },
      to: { path: '^src/cli/' },
    },
    {
      name: 'browser-no-builtins',
      comment: 'A browser has no node: modules. Put this into a *.node.ts and import that dynamically.',
      severity: 'error',
      from: { path: '^src/', pathNot: nodeSide },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'browser-no-node-packages',
      comment: 'This package needs Node. Put its use into a *.node.ts and import that dynamically.',
      severity: 'error',
      from: { path: '^src/', pathNot: nodeSide },
      to: { path: nodePackages.map((name) => `(^|/)node_modules/${name}/`) },
    },
    {
      name: 'browser-no-node-modules',
      comment:
        'A static import of a *.node.ts reaches every browser: import it dynamically, where Node was found.',
      severity: 'error',
      from: { path: '^src/', pathNot: nodeSide },
      to: { path: '\\.node\\.ts$', dependencyTypesNot: ['dynamic-import', 'type-only'] },
    },
    {
      name: 'references-are-for-tests',
      comment: 'The plain references are what tests compare with; they are not packed.',
      severity: 'error',
      from: { path: '^src/', pathNot: '/reference\\.ts$' },
      to: { path: '^src/.*/reference\\.ts$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'only-dependencies',
      comment: 'What ships may use only what package.json lists under dependencies.',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'resolvable',
      comment: 'There is no such module.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['types', 'import', 'node', 'default'],
    },
  },
};
