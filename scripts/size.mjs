// What a page has to download: the neutral entry is bundled for browsers as a bundler does it, once for each way of
// using it. Fails when a bundle passes its budget, reaches for something of Node, or when a page that uses one thing
// is given all. Needs a build.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** @typedef {{ use: string, imports: string, kilobytes: number, without?: string[] }} Use */
/** Budgets in kB (1,000 bytes) after gzip: a little above what is there. @type {Use[]} */
const uses = [
  { use: 'everything', imports: '*', kilobytes: 105 },
  {
    use: 'recognise faces',
    imports: '{ openGpu, fetchWeights, FaceRecognizer, Facebank, drawFaces }',
    kilobytes: 58,
    without: [
      'weights/onnx/export',
      'nets/initialize',
      'lower_training',
      'margin_loss',
      'backward.js',
      'conv2d/tune',
    ],
  },
  {
    use: 'find faces, weights read by yourself',
    imports: '{ openGpu, Mtcnn, readSafetensors }',
    kilobytes: 42,
    without: [
      'nets/iresnet',
      'nets/mobilefacenet',
      'weights/formats/torch',
      'fflate',
      'lower_training',
      'margin_loss',
    ],
  },
  { use: 'open a GPU', imports: '{ openGpu }', kilobytes: 5, without: ['/graph/', '/face/', '/nets/'] },
];

let failed = false;
for (const { use, imports, kilobytes, without = [] } of uses) {
  const contents =
    imports === '*' ? "export * from './dist/index.js';" : `export ${imports} from './dist/index.js';`;
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: root },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
    metafile: true,
    logLevel: 'silent',
  }).catch((error) => {
    console.error(`${use}: does not bundle for a browser:\n${error.message}`);
    process.exit(1);
  });
  const size = gzipSync(outputFiles[0].contents).length / 1000;
  const [output] = Object.values(metafile.outputs);
  const inside = Object.entries(output.inputs)
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => path);
  const wrong = inside.filter(
    (path) => /^(?!\(disabled\)).*\.node\.js$/.test(path) || without.some((w) => path.includes(w)),
  );
  const problems = [
    ...(size > kilobytes ? [`over its budget of ${kilobytes} kB`] : []),
    ...(wrong.length > 0 ? [`holds ${wrong.join(', ')}`] : []),
  ];
  console.log(
    `${size.toFixed(1)} kB of ${kilobytes}  ${use}${problems.length > 0 ? `: ${problems.join('; ')}` : ''}`,
  );
  failed ||= problems.length > 0;
}
process.exit(failed ? 1 : 0);
